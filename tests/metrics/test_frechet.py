"""The Fréchet distance: golden numbers, a closed form, and what may go wrong numerically."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.metrics.frechet import Moments, frechet_distance

GOLDEN = Path(__file__).parents[1] / "data" / "metrics.npz"


def moments(features: Tensor, batch: int = 64) -> Moments:
    result = Moments()
    for part in features.split(batch):
        result.add(part)
    return result


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_number_of_the_official_code() -> None:
    golden = np.load(GOLDEN)
    real, fake = (moments(torch.from_numpy(golden[key])) for key in ("real", "gen"))
    assert frechet_distance(real, fake) == pytest.approx(float(golden["fid"]), rel=1e-10)
    assert frechet_distance(fake, real) == pytest.approx(float(golden["fid"]), rel=1e-10)


@pytest.mark.parametrize("batch", [1, 7, 100, 1000])
def test_moments_do_not_depend_on_the_batches(batch: int) -> None:
    features = normal(0, 300, 5) * torch.tensor([1.0, 0.1, 30.0, 5.0, 1.0]) + 1e5  # a mean that dwarfs the spread
    got = moments(features, batch)
    assert got.count == 300
    centred = features - features.mean(0)
    torch.testing.assert_close(got.mean, features.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(got.covariance, centred.T @ centred / 300, rtol=1e-9, atol=1e-8)


def test_closed_form_for_independent_features() -> None:
    """With diagonal covariances the distance is |mu_a - mu_b|² + sum (s_a - s_b)²."""
    signs = torch.tensor([[a, b, c] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1)], dtype=torch.float64)
    s_a, s_b = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([3.0, 2.5, 1.0]).double()
    a, b = moments(signs * s_a), moments(signs * s_b + torch.tensor([1.0, 0.0, -2.0]).double())
    assert frechet_distance(a, b) == pytest.approx(5.0 + 4.0 + 0.25 + 1.0, rel=1e-12)


def test_root_of_matrices_that_do_not_commute() -> None:
    """Against the root of S_a S_b computed directly from its own, unsymmetric, eigendecomposition."""
    a, b = moments(normal(1, 200, 6) @ normal(2, 6, 6)), moments(normal(3, 150, 6) @ normal(4, 6, 6))
    root = torch.linalg.eigvals(a.covariance @ b.covariance).sqrt().sum().real
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_fewer_images_than_features() -> None:
    features = normal(5, 20, 100)
    assert frechet_distance(moments(features), moments(features)) == pytest.approx(0, abs=1e-5)
    # Two rank-one covariances along orthogonal axes: nothing overlaps, the traces add up.
    x, y = torch.zeros(2, 50), torch.zeros(2, 50)
    x[0, 0], x[1, 0], y[0, 1], y[1, 1] = 3, -3, 2, -2
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(9 + 4, rel=1e-12)


def test_no_features() -> None:
    empty = Moments()
    empty.add(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="no features were added"):
        _ = empty.mean
    with pytest.raises(ValueError, match="no features were added"):
        _ = empty.covariance
