"""The Inception Score: the official code's number, the formula, and the ends of the scale."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.metrics.inception_score import inception_score

GOLDEN = Path(__file__).parents[1] / "data" / "metrics.npz"


def test_golden_numbers_of_the_official_code() -> None:
    golden = np.load(GOLDEN)
    mean, std = inception_score(torch.from_numpy(golden["is_probs"]))
    assert mean == pytest.approx(float(golden["is_mean"]), rel=1e-12)
    assert std == pytest.approx(float(golden["is_std"]), rel=1e-12)


def test_the_formula_on_a_few_numbers() -> None:
    rows = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]
    marginal = [sum(column) / 3 for column in zip(*rows, strict=True)]
    divergence = sum(p * math.log(p / q) for row in rows for p, q in zip(row, marginal, strict=True)) / 3
    assert inception_score(torch.tensor(rows).double(), num_splits=1)[0] == pytest.approx(math.exp(divergence))


def test_the_ends_of_the_scale() -> None:
    certain = torch.eye(4).repeat(25, 1)  # zeros: 0 log 0 is 0, not NaN
    assert inception_score(certain, num_splits=5) == pytest.approx((4, 0))
    assert inception_score(torch.full((100, 4), 0.25)) == pytest.approx((1, 0))
