"""KID: golden numbers, brute force from the definition, no bias, and an honest standard error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.metrics.kernel import gaussian_mmd2, kernel_distance, unbiased_mmd2

GOLDEN = Path(__file__).parents[1] / "data" / "metrics.npz"


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_number_of_the_official_code() -> None:
    golden = np.load(GOLDEN)
    real, fake = (torch.from_numpy(golden[key]).double() for key in ("real", "gen"))
    subsets = torch.from_numpy(golden["kid_idx"].astype(np.int64))  # [20, 2, 50]: fakes, then reals
    estimates = [unbiased_mmd2(real[of_real], fake[of_fake]) for of_fake, of_real in subsets]
    assert float(torch.stack(estimates).mean()) == pytest.approx(float(golden["kid"]), rel=1e-12)


def test_brute_force_from_the_definition() -> None:
    a, b = normal(0, 5, 3), normal(1, 4, 3) + 1

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within_a = [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    within_b = [kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    across = [kernel(x, y) for x in a for y in b]
    expected = np.mean(within_a) + np.mean(within_b) - 2 * np.mean(across)
    assert float(unbiased_mmd2(a, b)) == pytest.approx(expected, rel=1e-12)


def test_equal_distributions_give_zero_on_average_however_small_the_sets() -> None:
    """400 pairs of 5 samples. The biased estimate would lie at E k(x,x) - E k(x,y), about 5.5 here."""
    estimates = torch.stack([unbiased_mmd2(normal(2 * k, 5, 4), normal(2 * k + 1, 5, 4)) for k in range(400)])
    assert abs(float(estimates.mean())) < 3 * float(estimates.std()) / 20
    assert float(estimates.std()) / 20 < 0.2


def test_repeatable_by_seed_and_blind_to_the_global_one() -> None:
    real, fake = normal(0, 60, 4), normal(1, 90, 4)
    torch.manual_seed(1)
    first = kernel_distance(real, fake, max_subset_size=20, seed=4)
    torch.manual_seed(2)
    assert kernel_distance(real, fake, max_subset_size=20, seed=4) == first
    assert kernel_distance(real, fake, max_subset_size=20, seed=5).value != first.value
    assert (first.num_subsets, first.subset_size) == (100, 20)


@pytest.mark.parametrize(("reals", "fakes", "size"), [(100, 500, 100), (3000, 90, 45), (3000, 4000, 1000), (4, 4, 2)])
def test_size_of_the_subsets(reals: int, fakes: int, size: int) -> None:
    assert kernel_distance(normal(0, reals, 2), normal(1, fakes, 2), num_subsets=2).subset_size == size


def test_the_mean_over_subsets_is_the_estimate_on_everything() -> None:
    real, fake = normal(0, 200, 4), normal(1, 300, 4) * 1.2
    got = kernel_distance(real, fake, num_subsets=2000, max_subset_size=50)
    assert abs(got.value - float(unbiased_mmd2(real, fake))) < 3 * got.standard_error


@pytest.mark.parametrize(("reals", "fakes", "size"), [(100, 400, 50), (60, 300, 1000)])
def test_standard_error_is_the_spread_of_the_value_over_new_fakes(reals: int, fakes: int, size: int) -> None:
    """The spread between subsets over sqrt(subsets), which is often quoted, is 3 to 5 times too small here."""
    real = normal(0, reals, 6)
    runs = [
        kernel_distance(real, normal(100 + k, fakes, 6) * 1.3 + 0.3, num_subsets=50, max_subset_size=size, seed=k)
        for k in range(60)
    ]
    spread = float(np.std([run.value for run in runs], ddof=1))
    claimed = float(np.mean([run.standard_error for run in runs]))
    assert 0.7 < claimed / spread < 1.6


def test_too_few_images() -> None:
    with pytest.raises(ValueError, match="KID: expected at least 4 real and fake images, got 9 and 3"):
        kernel_distance(normal(0, 9, 2), normal(1, 3, 2))


def test_gaussian_mmd_by_brute_force() -> None:
    a, b = normal(0, 6, 3), normal(1, 5, 3) + 1

    def mean(xs: Tensor, ys: Tensor) -> float:
        return float(np.mean([math.exp(-float((x - y).square().sum()) / (2 * 1.5**2)) for x in xs for y in ys]))

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert float(gaussian_mmd2(a, b, sigma=1.5)) == pytest.approx(expected, rel=1e-12)
    assert float(gaussian_mmd2(a, a, sigma=1.5)) == pytest.approx(0, abs=1e-12)
