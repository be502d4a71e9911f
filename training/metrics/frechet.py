"""The Fréchet distance between two sets of features, from their means and covariances (FID)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments", "frechet_distance"]


class Moments:
    """Mean and covariance of a stream of features, in float64 and in memory that does not grow.

    Batches are merged by the parallel-variance formula (Chan, Golub, LeVeque 1979), which subtracts no large numbers
    that are nearly equal, as E[xx'] - E[x]E[x]' does.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None  # [F]
        self._scatter: Tensor | None = None  # [F, F], the sum of (x - mean)(x - mean)'

    def add(self, features: Tensor) -> None:
        """Add [N, F] features."""
        if not len(features):
            return
        batch = features.to(torch.float64)
        mean = batch.mean(0)
        centred = batch - mean
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = len(batch), mean, scatter
            return
        total = self.count + len(batch)
        shift = mean - self._mean
        self._mean = self._mean + shift * (len(batch) / total)
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * len(batch) / total)
        self.count = total

    def state_dict(self) -> dict[str, Tensor]:
        """{count [], mean [F], scatter [F, F]}."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.covariance * self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count, self._mean, self._scatter = int(state["count"]), state["mean"], state["scatter"]

    @property
    def mean(self) -> Tensor:
        """[F]."""
        if self._mean is None:
            raise ValueError("Moments: no features were added")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """[F, F], divided by N (not N - 1), as in the official FID code."""
        if self._scatter is None:
            raise ValueError("Moments: no features were added")
        return self._scatter / self.count


def frechet_distance(a: Moments, b: Moments) -> float:
    """||mu_a - mu_b||² + tr(S_a + S_b - 2 (S_a S_b)^½).

    The trace of the root is taken as the sum of the roots of the eigenvalues of S_a^½ S_b S_a^½: the same eigenvalues
    as those of S_a S_b, but of a symmetric matrix. So it is exact for singular covariances too, that is for fewer
    images than features, where a general matrix square root returns complex noise.

    Source: Heusel et al. 2017 (arXiv 1706.08500), section 3. Differs in: never below 0, where rounding would put two
    equal sets.
    """
    S_a, S_b = a.covariance, b.covariance.to(a.mean.device)
    values, vectors = torch.linalg.eigh(S_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # S_a^½
    overlap = torch.linalg.eigvalsh(root @ S_b @ root).clamp(min=0).sqrt().sum()
    shift = a.mean - b.mean.to(a.mean.device)
    return max(float(shift.square().sum() + S_a.trace() + S_b.trace() - 2 * overlap), 0.0)
