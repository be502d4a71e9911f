"""Warm-up, end, steps left out, and what is one step where gradients are accumulated."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import KDConfig, KDError
from kd_plugin.config.schema import from_dict


def test_warmup_grows_to_the_weight(attach, discriminator, images, run):
    plain = run(attach(p=0), discriminator, images(1), images(2)).total
    kd = attach(p=0, warmup=0.016)  # kimg: 4 steps of 4 images
    totals = [float(run(kd, discriminator, images(1), images(2)).total.detach()) for _ in range(6)]
    assert totals == pytest.approx([float(plain.detach()) * share for share in (0.25, 0.5, 0.75, 1, 1, 1)], rel=1e-6)


def test_until_falls_to_nothing_that_costs_nothing(attach, discriminator, teacher, images, run):
    plain = float(run(attach(p=0), discriminator, images(1), images(2)).total.detach())
    teacher.calls.clear()
    kd = attach(p=0, until=0.016)
    totals = [float(run(kd, discriminator, images(1), images(2)).total.detach()) for _ in range(6)]
    assert totals == pytest.approx([plain * share for share in (0.75, 0.5, 0.25, 0, 0, 0)], rel=1e-6)
    assert len(teacher.calls) == 4


def test_an_accumulated_step_ends_as_it_began(attach, discriminator, teacher, images, run):
    """The last image before the end is in the middle of the second step: both of its calls distil, at factor 0."""
    kd = attach(p=0, until=0.012)
    for _ in range(3):
        kd.begin_step()
        for _ in range(2):
            run(kd, discriminator, images(1), images(2))
    assert len(teacher.calls) == 4


def test_one_step_of_three_with_three_times_the_weight(attach, discriminator, teacher, images, run):
    plain = float(run(attach(p=0), discriminator, images(1), images(2)).total.detach())
    teacher.calls.clear()
    kd = attach(p=0, every=3)
    totals = [float(run(kd, discriminator, images(1), images(2)).total.detach()) for _ in range(7)]
    assert totals == pytest.approx([3 * plain, 0, 0, 3 * plain, 0, 0, 3 * plain], rel=1e-6)
    assert len(teacher.calls) == 3  # nothing is paid for in the other steps


def test_warmup_counts_images_of_steps_left_out(attach, discriminator, images, run):
    kd, plain = attach(p=0, every=2, warmup=0.016), attach(p=0)
    whole = float(run(plain, discriminator, images(1), images(2)).total.detach())
    totals = [float(run(kd, discriminator, images(1), images(2)).total.detach()) for _ in range(5)]
    assert totals == pytest.approx([2 * whole * 0.5, 0, 2 * whole, 0, 2 * whole], rel=1e-6)


def test_calls_of_one_step_share_its_coin(attach, discriminator, images, run):
    """A host that accumulates gradients says where steps begin; all its calls meet the same coin."""
    kd, whole = attach(terms={"agkd": 1.0}, p=0.5), attach(terms={"agkd": 1.0}, p=0.5)
    for _ in range(12):
        kd.begin_step()
        parts = [run(kd, discriminator, images(1)[half], images(2)[half]).total for half in (slice(2), slice(2, 4))]
        joined = run(whole, discriminator, images(1), images(2)).total
        torch.testing.assert_close(sum(parts) / 2, joined)


def test_every_counts_steps_of_the_host(attach, discriminator, images, run):
    kd = attach(p=0, every=2)
    seen = []
    for _ in range(4):
        kd.begin_step()
        seen.append([float(run(kd, discriminator, images(1), images(2)).total.detach()) > 0 for _ in range(2)])
    assert seen == [[True, True], [False, False]] * 2


def test_the_state_goes_on(attach, discriminator, images, run):
    first, second = (attach(p=0.5, every=2, warmup=0.1, until=0.03) for _ in range(2))
    for _ in range(3):
        run(first, discriminator, images(1), images(2))
    second.load_state_dict(first.state_dict())
    for step in range(6):
        totals = [float(run(kd, discriminator, images(step), images(9)).total.detach()) for kd in (first, second)]
        assert totals[0] == totals[1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"warmup": -1.0}, "warmup=-1.0 is not a length in kimg; give a number of at least 0"),
        ({"until": float("nan")}, "until=nan is not a length in kimg"),
        ({"every": 0}, "every=0 is not a number of steps; give at least 1"),
        ({"norm": "whitened"}, "norm='whitened' is unknown; choose one of none, unit, standardise, whiten"),
        ({"diversity_on": "g"}, "diversity_on='g' is unknown; choose one of generator, student, off"),
        ({"template": "a photo"}, "template='a photo' must contain {} once"),
        ({"layer": " , "}, "layer=: no layer was named"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(KDError) as error:
        from_dict(KDConfig, option)
    assert message in str(error.value)
