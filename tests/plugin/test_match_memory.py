"""Matching with a memory: real images of earlier steps join those of the step."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import KDError
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import from_dict
from kd_plugin.functional import energy_distance
from tests.plugin.test_match_stages import StagedTeacher


@pytest.fixture
def teacher() -> StagedTeacher:
    return StagedTeacher()


STAGES = {"terms": {"match": 1.0}, "match_on": "stages", "prompts": None, "match_pull": 0.0}


def test_real_images_of_earlier_steps_count_like_those_of_one_large_batch(attach, images):
    with_memory, without = attach(**STAGES, match_memory=8), attach(**STAGES)
    reals = [images(seed) for seed in (2, 3, 4, 5)]
    for number, real in enumerate(reals):
        fakes = [images(10 + number).requires_grad_() for _ in range(2)]
        joint = torch.cat([real, *reversed(reals[max(0, number - 2) : number])])  # those of two steps are remembered
        got, expected = (
            kd.for_generator(fake, shown)
            for kd, fake, shown in zip((with_memory, without), fakes, (real, joint), strict=True)
        )
        torch.testing.assert_close(got.terms, expected.terms)
        gradients = [torch.autograd.grad(d.total, fake)[0] for d, fake in zip((got, expected), fakes, strict=True)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", [1, 3, 6])  # fewer than a batch of 4, and no multiple of one
def test_the_latest_images_are_remembered(size, attach, images, teacher):
    kd = attach(terms={"match": 1.0}, match_on="embedding", prompts=None, match_memory=size)
    reals = [images(seed) for seed in (2, 3, 4, 5)]
    for real in reals[:3]:
        kd.for_generator(images(1), real)
    latest = torch.cat(reals[:3])[-size:]
    expected = energy_distance(*map(teacher.embed_images, (images(1), torch.cat([reals[3], latest]))))
    torch.testing.assert_close(kd.for_generator(images(1), reals[3]).total, expected)


def test_the_memory_is_part_of_the_state(attach, images):
    kd, other = (attach(**STAGES, match_memory=6) for _ in range(2))
    for seed in (2, 3):
        kd.for_generator(images(1), images(seed))
    other.load_state_dict(kd.state_dict())
    for seed in (4, 5, 6):
        first, second = (each.for_generator(images(1), images(seed)) for each in (kd, other))
        assert first.terms == second.terms


def test_without_a_memory_the_state_is_what_it_was(attach):
    assert not any("memory" in key for key in attach(**STAGES).state_dict())


def test_it_is_not_trained(attach, images):
    kd = attach(**STAGES, match_memory=6)
    assert not [name for name, _ in kd.named_parameters() if "memory" in name]
    fake = images(1).requires_grad_()
    first = kd.for_generator(fake, images(2).requires_grad_())
    first.total.backward()
    kd.for_generator(fake, images(3)).total.backward()  # not a second time through the graph of the first


def test_a_size_must_be_a_number_of_images():
    with pytest.raises(KDError, match="match_memory=-1 is not a number of images"):
        from_dict(KDConfig, {"match_memory": -1})
