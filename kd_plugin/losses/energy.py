"""How far apart two sets of embeddings are, as distributions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["energy_distance"]


def energy_distance(fake: Tensor, real: Tensor) -> Tensor:
    """(2 E|f - r| - E|f - f'| - E|r - r'|) / E|r - r'|, over pairs of different images.

    0 where both come from one distribution (an unbiased estimate: it may be below), and at most where they share
    nothing. It has neither a bandwidth nor a scale to choose. In it are the two wishes of the diversity term's kind: be
    unlike each other, and be near the real images.

    Source: Székely & Rizzo, "Energy statistics", 2013. Differs from it in: divided by the real images' own spread.

    Args:
        fake: [N, E], N at least 2.
        real: [M, E], M at least 2, not all the same.
    """
    among_real = _among(real)
    return (2 * _distances(fake, real).mean() - _among(fake) - among_real) / among_real


def _among(rows: Tensor) -> Tensor:
    return _distances(rows, rows).sum() / (len(rows) * (len(rows) - 1))


def _distances(one: Tensor, other: Tensor) -> Tensor:
    # By products they would be inexact where they are small, on the diagonal too.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
