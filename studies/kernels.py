"""Another distance between sets of features than the product's, and other statistics of a stage."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_plugin.functional import spread
from kd_plugin.pairwise import pairwise

__all__ = ["laplace_discrepancy", "means_and_deviations"]

LAPLACE_WIDTHS = (0.25, 0.5, 1.0, 2.0)  # of kernels, in mean distances among the real images


def laplace_discrepancy(fake: Tensor, real: Tensor) -> Tensor:
    """E k(f, f') + E k(r, r') - 2 E k(f, r): the squared maximum mean discrepancy, over pairs of different images.

    k is the mean of exp(-|x - y| / width), over several widths.

    Args:
        fake, real: [K, N, C] and [K, M, C]; or [N, E] and [M, E].
    """
    unit = spread(real)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = pairwise(a, b) / unit
        return torch.stack([torch.exp(-distances / width) for width in LAPLACE_WIDTHS]).mean(dim=0)

    def among(rows: Tensor) -> Tensor:
        count = rows.shape[-2]
        values = kernel(rows, rows)
        return (values.sum(dim=(-2, -1)) - count) / (count * (count - 1))  # k(x, x) is 1

    return (among(fake) + among(real) - 2 * kernel(fake, real).mean(dim=(-2, -1))).mean()


def means_and_deviations(maps: Tensor) -> Tensor:
    """Of 2x2 places: [N, C, 2g, 2g] -> [N, 2C, g, g]. A map of one place has no deviation: as it is."""
    if maps.shape[-1] < 2:
        return maps
    side = maps.shape[-1] // 2
    places = maps[..., : 2 * side, : 2 * side].unflatten(-1, (side, 2)).unflatten(-3, (side, 2))  # [N, C, g, 2, g, 2]
    variance = places.var(dim=(-3, -1), correction=0)
    return torch.cat([places.mean(dim=(-3, -1)), (variance + 1e-6).sqrt()], dim=1)
