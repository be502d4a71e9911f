"""Random numbers of the ADA transforms: per-image draws and gates, or one fixed percentile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Random numbers for one batch: float64 [N] on the CPU, from torch's global CPU generator.

    On the CPU because there are a few dozen numbers per image: drawing them and multiplying 3x3 matrices on a GPU costs
    some 200 kernel launches, and the padding that geometry needs must be known to the host anyway. It also makes a seed
    mean the same augmentations on every device.

    Attributes:
        batch: number of images N.
        p: the pipeline's augmentation probability, in [0,1].
        percentile: None, or a number in (0,1): every draw is then that percentile of its distribution, every gate is
            open, and nothing is random. By the convention of the official `debug_percentile`, which the golden arrays
            follow, a normal variable takes erfinv(2 percentile - 1): 1/sqrt(2) of its true percentile.
    """

    batch: int
    p: float
    percentile: float | None = None

    def gate(self, probability: float) -> Tensor:
        """True with the given probability, bool [N]."""
        if self.percentile is not None:
            return torch.ones(self.batch, dtype=torch.bool)
        return self.uniform() < probability

    def uniform(self) -> Tensor:
        """U(0,1)."""
        if self.percentile is not None:
            return torch.full((self.batch,), self.percentile, dtype=torch.float64)
        return torch.rand(self.batch, dtype=torch.float64)

    def symmetric(self) -> Tensor:
        """U(-1,1)."""
        return self.uniform() * 2 - 1

    def choice(self, count: int) -> Tensor:
        """Equally likely integers 0 .. count - 1."""
        return (self.uniform() * count).floor()

    def normal(self) -> Tensor:
        """N(0,1)."""
        if self.percentile is not None:
            return self.symmetric().erfinv()
        return torch.randn(self.batch, dtype=torch.float64)

    def half_normal(self) -> Tensor:
        """|N(0,1)|."""
        if self.percentile is not None:
            return self.uniform().erfinv()
        return self.normal().abs()
