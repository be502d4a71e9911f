"""The moving average's half-life and what it copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.ema import ema_beta, update_ema


def test_half_life() -> None:
    assert ema_beta(1000, half_life_kimg=10, rampup=None, nimg=0) ** 10 == pytest.approx(0.5)


def test_rampup_shortens_the_half_life_early_on() -> None:
    assert ema_beta(16, 10, rampup=0.05, nimg=0) == 0  # the average starts as a copy
    assert ema_beta(100, 10, rampup=0.05, nimg=20_000) ** 10 == pytest.approx(0.5)  # .05 * 20k = 1000 images
    assert ema_beta(100, 10, rampup=0.05, nimg=10_000_000) == ema_beta(100, 10, rampup=None, nimg=0)


def test_update_blends_parameters_and_copies_buffers() -> None:
    class Net(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full([2], value))
            self.register_buffer("seen", torch.tensor(value))

    average, network = Net(1.0), Net(5.0)
    update_ema(average, network, beta=0.75)
    assert average.weight.tolist() == [2.0, 2.0]
    assert average.seen.item() == 5.0
    assert network.weight.tolist() == [5.0, 5.0]
