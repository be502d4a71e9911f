"""The unbiased kernel distance between two sets of features (KID).

Unlike the Fréchet distance its expectation does not depend on the number of images, which is why it is the one to
read for small sets. It can come out slightly below 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KernelDistance", "gaussian_mmd2", "kernel_distance", "unbiased_mmd2"]


@dataclass(frozen=True)
class KernelDistance:
    """A KID and how it was measured."""

    value: float
    standard_error: float
    num_subsets: int
    subset_size: int


def unbiased_mmd2(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of the squared MMD under k(x, y) = (x'y / F + 1)³.

    mean of k over distinct pairs within a + the same within b - 2 * mean of k over all pairs across.

    Args:
        a, b: features [m, F] and [n, F], m and n at least 2. Give float64: the terms cancel to a thousandth.

    Source: Gretton et al. 2012, lemma 6; the kernel: Bińkowski et al. 2018 (arXiv 1801.01401).
    """
    m, n, width = len(a), len(b), a.shape[1]
    within_a = (a @ a.T / width + 1) ** 3
    within_b = (b @ b.T / width + 1) ** 3
    across = (a @ b.T / width + 1) ** 3
    pairs_a = (within_a.sum() - within_a.trace()) / (m * (m - 1))
    pairs_b = (within_b.sum() - within_b.trace()) / (n * (n - 1))
    return pairs_a + pairs_b - 2 * across.mean()


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    *,
    num_subsets: int = 100,
    max_subset_size: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> KernelDistance:
    """Mean of the unbiased estimate over random subsets, so that time and memory do not grow with the square of N.

    The standard error says how far the value may be off because only these fakes were drawn, for these reals. Subsets
    of one pool overlap, so the spread between them divided by sqrt(num_subsets) would be far too small a number. With
    f = subset_size / number of fakes, the mean over all subsets varies f / (1 - f) times as much as the subsets do
    among themselves (sampling from a finite pool), to which the drawing of the subsets adds 1 / num_subsets.

    Args:
        real, fake: features [N, F], at least 4 of each.
        num_subsets: at least 2.
        max_subset_size: a subset is smaller where there are fewer reals, or fewer than twice the fakes.
        seed: of the subsets.
        device: where to compute, in float64.
    """
    size = min(len(real), len(fake) // 2, max_subset_size)
    if size < 2:
        raise ValueError(f"KID: expected at least 4 real and fake images, got {len(real)} and {len(fake)}")
    generator = torch.Generator().manual_seed(seed)

    def draw(pool: Tensor) -> Tensor:
        return pool[torch.randperm(len(pool), generator=generator)[:size].to(pool.device)].to(device, torch.float64)

    estimates = torch.stack([unbiased_mmd2(draw(real), draw(fake)) for _ in range(num_subsets)])
    share = size / len(fake)
    error = float(estimates.std()) * math.sqrt(share / (1 - share) + 1 / num_subsets)
    return KernelDistance(float(estimates.mean()), error, num_subsets, size)


def gaussian_mmd2(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """Biased estimate of the squared MMD under k(x, y) = exp(-|x - y|² / 2 sigma²), as in CMMD.

    Args:
        a, b: [m, F] and [n, F], float64.

    Source: Jayasumana et al. 2024 (arXiv 2401.09603), section 4; their code keeps the diagonals.
    """

    def mean(x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros([])
        for part in x.split(4096):  # so that memory does not grow with the product of the sizes
            squares = (part.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * part @ y.T).clamp(min=0)
            total = total + torch.exp(squares / (-2 * sigma**2)).sum()
        return total / (len(x) * len(y))

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)
