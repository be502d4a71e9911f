"""Distilling on mixtures of real images: what they are, who sees them, and that a host cannot forget them."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import CaptureError
from kd_plugin.mixing import mixtures


def test_a_mixture_lies_between_two_neighbours():
    torch.manual_seed(0)
    images = torch.arange(4.0).pow(2).view(4, 1, 1, 1).expand(4, 3, 2, 2)  # 0, 1, 4, 9; differences all differ
    mixed = mixtures(images)
    assert mixed.shape == images.shape
    for row, (own, other) in enumerate([(0.0, 9.0), (1.0, 0.0), (4.0, 1.0), (9.0, 4.0)]):
        assert (mixed[row] == mixed[row, 0, 0, 0]).all()  # one share an image
        share = (float(mixed[row, 0, 0, 0]) - other) / (own - other)
        assert 0 < share < 1
    assert not torch.equal(mixed, mixtures(images))


def test_shares_are_uniform():
    torch.manual_seed(0)
    ends = torch.tensor([0.0, 1.0]).repeat(2000).view(-1, 1, 1, 1)
    shares = torch.where(ends == 1, mixtures(ends), 1 - mixtures(ends)).flatten()
    assert abs(float(shares.mean()) - 0.5) < 0.02
    assert abs(float(shares.var()) - 1 / 12) < 0.01


def test_teacher_and_student_see_the_mixtures(attach, discriminator, teacher, images):
    kd = attach(mix=True, p=0, head="identity")
    real, fake = images(1), images(2)
    discriminator(real)
    mixed = kd.mixed(real)
    with kd.capture("real"):
        discriminator(mixed)
    with kd.capture("fake"):
        discriminator(fake)
    total = kd().total
    assert torch.equal(teacher.calls[-1], torch.cat([mixed, fake]))
    plain = attach(p=0, head="identity")
    with plain.capture("real"):
        discriminator(mixed)
    with plain.capture("fake"):
        discriminator(fake)
    torch.testing.assert_close(total, plain().total)


def test_off_and_in_steps_left_out_nothing_is_mixed(attach, discriminator, images):
    assert attach().mixed(images(1)) is None
    kd = attach(mix=True, every=2)
    for step in range(4):
        mixed = kd.mixed(images(1))
        assert (mixed is None) == bool(step % 2)
        for role, shown in (("real", images(1) if mixed is None else mixed), ("fake", images(2))):
            with kd.capture(role):
                discriminator(shown)
        assert (float(kd().total.detach()) == 0) == bool(step % 2)


def test_a_host_that_does_not_mix_is_told(attach, discriminator, images):
    kd = attach(mix=True)
    for role in ("real", "fake"):
        with kd.capture(role):
            discriminator(images(1))
    with pytest.raises(CaptureError, match=r"--kd-mix: nothing was mixed; call D with kd\.mixed\(real\)"):
        kd()


def test_two_teachers_see_the_same_mixtures(attach, discriminator, teacher, images):
    kd = attach(mix=True, teacher=[(1.0, teacher), (0.5, teacher)])
    mixed = kd.mixed(images(1))
    for role, shown in (("real", mixed), ("fake", images(2))):
        with kd.capture(role):
            discriminator(shown)
    kd()
    assert all(torch.equal(call[:4], mixed) for call in teacher.calls[-2:])
