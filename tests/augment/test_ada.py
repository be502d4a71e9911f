"""The controller of p: arithmetic of one adjustment, bounds, ranks, resume, messages."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from training.augment import AdaController

SURE, UNSURE = torch.ones(8, 1), torch.tensor([1.0, -1.0] * 4)


def _run(controller: AdaController, logits: Tensor, steps: int, nimg: int = 8) -> None:
    for _ in range(steps):
        controller.observe(logits)
        controller.step(nimg)


def test_adjusts_every_interval_by_images_over_speed() -> None:
    controller = AdaController(target=0.6, kimg=1, interval=4)
    seen = []
    for _ in range(9):
        controller.observe(SURE)
        seen.append((controller.step(nimg=10), round(controller.p, 9)))
    assert seen == [(False, 0), (False, 0), (False, 0), (True, 0.04), *[(False, 0.04)] * 3, (True, 0.08), (False, 0.08)]


def test_direction_is_the_sign_of_the_excess_over_the_whole_interval() -> None:
    controller = AdaController(target=0.5, kimg=1, interval=2, p=0.5)
    controller.observe(SURE)
    controller.step(10)
    controller.observe(torch.full((100,), -0.1))  # outnumbers the first step
    assert controller.step(10)
    assert controller.p == pytest.approx(0.48)
    at_target = AdaController(target=0.0, kimg=1, interval=1, p=0.5)
    _run(at_target, UNSURE, 1)
    assert at_target.p == 0.5


def test_p_stays_a_probability() -> None:
    controller = AdaController(target=0.6, kimg=0.05, interval=1)
    _run(controller, UNSURE, 3)
    assert controller.p == 0
    _run(controller, SURE, 100)
    assert controller.p == 1
    _run(controller, UNSURE, 1)
    assert controller.p == pytest.approx(1 - 8 / 50)


def test_fixed_p_never_moves() -> None:
    controller = AdaController(target=0.6, kimg=0.001, interval=1, p=0.3, fixed=True)
    _run(controller, SURE, 5)
    assert controller.p == 0.3


def test_nan_counts_as_undecided_and_p_stays_a_number() -> None:
    controller = AdaController(target=0.6, kimg=1, interval=1, p=0.5)
    _run(controller, torch.tensor([float("nan"), 1.0]), 1, nimg=10)  # mean sign 0.5
    assert controller.p == pytest.approx(0.49)


def test_signs_are_summed_over_ranks() -> None:
    """This rank is sure, the other is not, and the other has more logits: p goes down here too."""
    controller = AdaController(target=0.5, kimg=1, interval=1, p=0.5)
    controller.observe(SURE)
    assert controller.step(10, all_reduce=lambda sums: sums + torch.tensor([0.0, 24.0], dtype=sums.dtype))
    assert controller.p == pytest.approx(0.49)


@pytest.mark.parametrize("cut", range(1, 9))
def test_resume_is_exact(cut: int) -> None:
    torch.manual_seed(0)
    logits = [torch.randn(8) + 0.8 for _ in range(16)]
    whole = AdaController(target=0.6, kimg=0.3, interval=4, p=0.2)
    for step, seen in enumerate(logits):
        if step == cut:
            state = json.loads(json.dumps(whole.state_dict()))
        _run(whole, seen, 1)
    resumed = AdaController(target=0.6, kimg=0.3, interval=4)
    resumed.load_state_dict(state)
    for seen in logits[cut:]:
        _run(resumed, seen, 1)
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.p != 0.2


def test_a_state_out_of_range_is_brought_back() -> None:
    controller = AdaController(target=0.6, kimg=100)
    controller.load_state_dict({**controller.state_dict(), "p": 21.8})
    assert controller.p == 1


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"^--target: expected a number from 0 to 1, .* got 60"):
        AdaController(target=60, kimg=100)
    with pytest.raises(ValueError, match=r"^--p: expected a probability from 0 to 1, got 1\.5"):
        AdaController(target=0.6, kimg=100, p=1.5)
    with pytest.raises(ValueError, match=r"^--ada-kimg: .* got 0; for a constant p use --aug=fixed"):
        AdaController(target=0.6, kimg=0)
    with pytest.raises(ValueError, match=r"^ada_interval: expected a number of steps >= 1, got 0"):
        AdaController(target=0.6, kimg=100, interval=0)
    with pytest.raises(RuntimeError, match=r"no logits observed in 1 steps; call observe"):
        AdaController(target=0.6, kimg=100, interval=1).step(8)
