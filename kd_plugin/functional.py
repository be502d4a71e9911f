"""The algebra of the terms: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_plugin.pairwise import pairwise

__all__ = [
    "best_constant_l1",
    "best_constant_l2",
    "best_constant_squared",
    "correlations",
    "energy_distance",
    "mean_absolute_difference",
    "mean_row_distance",
    "mean_squared_difference",
    "row_normalized",
    "spread",
    "sum_of_squared_differences",
]

SHORTEST_ROW = 1e-12


def row_normalized(rows: Tensor) -> Tensor:
    """Each row of [N, P] divided by its L2 norm.

    Computed in float64 for float64 input, otherwise in float32: norms of half-precision rows overflow. A row shorter
    than 1e-12 is returned unchanged, so that neither it nor its gradient blows up.
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # [N, 1]
    return rows / torch.where(length > SHORTEST_ROW, length, 1.0)


def correlations(embeddings: Tensor, texts: Tensor) -> Tensor:
    """Image-text correlations: images [N, E] and texts [P, E] -> rows of unit length, [N, P].

    Source: KD-DLGAN (arXiv 2303.17158), the matrices C_T and C_S of correlated distillation.
    """
    return row_normalized(embeddings @ texts.T)


def energy_distance(fake: Tensor, real: Tensor) -> Tensor:
    """(2 E|f - r| - E|f - f'| - E|r - r'|) / E|r - r'|, over pairs of different images.

    0 if both come from the same distribution (the estimate is unbiased, so it can be negative). It needs no bandwidth.
    The first part draws generated images towards the real ones, the second pushes them apart.

    Source: Székely & Rizzo, "Energy statistics", 2013. Differs from it in: divided by the spread of the real images.
    KD-DLGAN has no such term.

    Args:
        fake: [N, E] or [K, N, E], N at least 2. Of K distributions, the numerator and the denominator are means.
        real: [M, E] or [K, M, E], M at least 2, not all equal.
    """
    among_real = _mean_among(real)
    return (2 * pairwise(fake, real).mean() - _mean_among(fake) - among_real) / among_real


def spread(rows: Tensor) -> Tensor:
    """The mean distance among different rows of [..., M, E]: [..., 1, 1], without gradient, and above 0."""
    rows, number = rows.detach(), rows.shape[-2]
    return (pairwise(rows, rows).sum(dim=(-2, -1), keepdim=True) / (number * (number - 1))).clamp_min(SHORTEST_ROW)


def _mean_among(rows: Tensor) -> Tensor:
    return pairwise(rows, rows).sum() / (rows[..., 0].numel() * (rows.shape[-2] - 1))


def mean_absolute_difference(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().mean()


def mean_squared_difference(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def sum_of_squared_differences(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum()


def mean_row_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean over rows of |prediction - target|_2. A row that matches exactly has gradient 0, not NaN."""
    squares = (target - prediction).square().sum(dim=1)
    differs = squares > 0
    lengths = torch.where(differs, squares, torch.ones_like(squares)).sqrt()
    return torch.where(differs, lengths, torch.zeros_like(lengths)).mean()


def best_constant_l1(target: Tensor) -> Tensor:
    """[1, K], the row nearest to all rows of [N, K] in mean absolute difference: the median of each column."""
    return target.median(dim=0, keepdim=True).values


def best_constant_squared(target: Tensor) -> Tensor:
    """[1, K], the row nearest to all rows of [N, K] in squared difference: their mean."""
    return target.mean(dim=0, keepdim=True)


def best_constant_l2(target: Tensor, iterations: int = 50) -> Tensor:
    """[1, K], the row nearest to all rows of [N, K] in mean L2 distance: the geometric median (Weiszfeld)."""
    point = best_constant_squared(target)
    for _ in range(iterations):
        weights = torch.linalg.vector_norm(target - point, dim=1, keepdim=True).clamp_min(1e-12).reciprocal()
        point = (weights * target).sum(dim=0, keepdim=True) / weights.sum()
    return point
