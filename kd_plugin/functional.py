"""The matching term: fakes should be distributed as the real images are, in the teacher's embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["energy_distance"]


def energy_distance(fake: Tensor, real: Tensor) -> Tensor:
    """(2 E|f - r| - E|f - f'| - E|r - r'|) / E|r - r'|, over pairs of different images.

    0 where both come from one distribution (an estimate without bias: it may be below). It has neither a bandwidth nor
    a scale to choose. In it are two wishes: be near the real images, and, as in the paper's diversity term, be unlike
    each other; that one alone has no end.

    Source: Székely & Rizzo, "Energy statistics", 2013. Differs from it in: divided by the real images' own spread. KD-
    DLGAN has no such term.

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
