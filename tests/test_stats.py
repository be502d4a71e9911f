"""Figures of a tick against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_utils.stats import Stat, Stats


def test_figures_over_several_reports() -> None:
    values = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) + 5
    stats = Stats()
    for part in values:
        stats.report("a", part)
    stats.report("b", torch.tensor(2.0))
    figures = stats.drain()
    numbers = values.double().numpy()
    assert figures["a"].num == 21
    assert figures["a"].mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert figures["a"].std == pytest.approx(np.std(numbers), rel=1e-9)
    assert figures["b"] == Stat(1, 2.0, 0.0)
    assert stats.drain() == {}


def test_reports_need_no_gradient() -> None:
    stats = Stats()
    stats.report("a", torch.ones(2, requires_grad=True) * 2)
    assert stats.drain()["a"] == Stat(2, 2.0, 0.0)
