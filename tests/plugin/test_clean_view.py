"""View `clean`: the teacher looks at each real image once in a run."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import CaptureError
from kd_plugin.teachers import cache
from kd_plugin.teachers.cache import EmbeddingCache


def step(kd, discriminator, real, fake, keys):
    with kd.capture("real", clean=real, keys=torch.tensor(keys)):
        discriminator(real.flip(3))
    with kd.capture("fake", clean=fake):
        discriminator(fake.flip(3))
    return kd()


def test_each_real_image_is_embedded_once(attach, discriminator, teacher, images):
    kd, plain = attach(view="clean", p=0), attach(view="clean", p=0)
    pool = images(1, 6)
    for chosen in ([0, 1, 2, 2], [2, 3, 4, 0], [5, 4, 3, 2], [0, 5, 1, 4]):
        teacher.calls.clear()
        cached = step(kd, discriminator, pool[chosen], images(2), [10 * key for key in chosen])
        with plain.capture("real", clean=pool[chosen]):
            discriminator(pool[chosen].flip(3))
        with plain.capture("fake", clean=images(2)):
            discriminator(images(2).flip(3))
        calls = [len(call) for call in teacher.calls]
        torch.testing.assert_close(cached.total, plain().total)
        # Reals in a whole batch as long as one of them is new, fakes always in one of their own.
        assert calls == ([4, 4] if chosen != [0, 5, 1, 4] else [4])


def test_auto_is_clean_where_there_are_clean_images(attach, discriminator, teacher, images):
    kd, clean, seen = attach(p=0), attach(view="clean", p=0), attach(view="seen", p=0)
    real, fake = images(1), images(2)
    totals = [step(each, discriminator, real, fake, [0, 1, 2, 3]).total for each in (kd, clean, seen)]
    assert totals[0] == totals[1]
    assert totals[0] != totals[2]
    without = [run_without(each, discriminator, real, fake) for each in (attach(p=0), attach(view="seen", p=0))]
    assert without[0] == without[1]


def run_without(kd, discriminator, real, fake):
    for role, images in (("real", real), ("fake", fake)):
        with kd.capture(role):
            discriminator(images.flip(3))
    return kd().total


def test_view_seen_keeps_nothing(attach, discriminator, teacher, images):
    kd = attach(view="seen")
    for _ in range(2):
        step(kd, discriminator, images(1), images(2), [0, 1, 2, 3])
    assert [len(call) for call in teacher.calls] == [8, 8]


def test_as_many_keys_as_images(attach, discriminator, images):
    kd = attach(view="clean")
    with (
        pytest.raises(CaptureError, match="3 keys, but D saw 4"),
        kd.capture("real", clean=images(1), keys=torch.arange(3)),
    ):
        discriminator(images(1))


def test_beyond_the_limit_rows_lie_on_disk(monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 4 * 4 * 3)  # four rows
    kept = EmbeddingCache(3, limit=2 * 4 * 3 * 4)  # two blocks
    rows = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    keys = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:30]
    for part, part_keys in zip(rows.split(7), keys.split(7), strict=True):
        assert kept.missing(part_keys) == list(range(len(part)))
        kept.put(part_keys, part)
        assert kept.missing(part_keys) == []
    assert torch.equal(kept.get(keys), rows)
    assert torch.equal(kept.get(keys.flip(0)), rows.flip(0))
    assert kept.bytes_in_memory == 2 * 4 * 3 * 4
    assert len(list(cache.Path(kept._folder.name).iterdir())) == 6
    assert kept.missing(torch.tensor([1001, int(keys[0]), 1001, 1002])) == [0, 3]


def test_few_wide_rows_stay_in_memory():
    """The cells of four stages of a ViT-L/14."""
    kept = EmbeddingCache(1024 * 16, limit=cache.LIMIT // 5)
    kept.put(torch.arange(100), torch.rand(100, 1024 * 16))
    assert kept._folder is None
    assert kept.bytes_in_memory <= 2 * 100 * 1024 * 16 * 4
