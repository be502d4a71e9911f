"""Normalisation of the teacher's embeddings: raw, unit length, standardised or whitened by running statistics.

Embeddings of one narrow dataset are nearly equal: most of their energy is their mean, and a few directions hold most of
the rest. The differences between images are small in comparison, and a loss on raw embeddings mostly fits a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_plugin.distributed import summed
from kd_plugin.functional import row_normalized
from kd_plugin.types import Pairs

__all__ = ["NORMS", "Normalization", "RunningMoments"]

NORMS = ("none", "unit", "standardise", "whiten")
WINDOW = 10_000  # embeddings: the moments forget what lies further back
REFRESH = 16  # updates between two eigendecompositions, once the first of them are over
FLOOR = 0.1  # of the mean variance, added to every variance: directions without any must not become noise of size 1


class RunningMoments(nn.Module):
    """Running mean and variance (or covariance) of rows, over all processes; the latest WINDOW rows count most.

    Args:
        width: E.
        full: keep the covariance [E, E] in place of the variances [E].
    """

    def __init__(self, width: int, full: bool, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.full = full
        self.updates = 0  # on the host: asking the device for it would stop it once a step
        self.register_buffer("count", torch.zeros((), device=device))  # rows, up to WINDOW
        self.register_buffer("mean", torch.zeros(width, device=device))
        self.register_buffer("second", torch.zeros((width, width) if full else (width,), device=device))

    count: Tensor
    mean: Tensor
    second: Tensor

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Include [N, E]."""
        # Around the mean so far: sums of raw squares would lose the variance beside the mean.
        away = rows.to(torch.float32 if rows.device.type == "mps" else torch.float64) - self.mean
        squares = away.T @ away if self.full else away.square().sum(dim=0)
        sums = summed(torch.cat([away.sum(dim=0), squares.flatten(), away.new_full((1,), len(rows))]))
        first, squares, number = sums.split_with_sizes([len(self.mean), self.second.numel(), 1])
        self.updates += 1
        self.count.add_(number[0]).clamp_(max=WINDOW)
        # share of these rows: number / weight. The mean moves by share E away, the second moment to
        # (1 - share) second + share E away^2 - (share E away)^2.
        weight = torch.maximum(self.count, number)
        moved = first / weight
        squares = squares.view_as(self.second).addcmul(self.second, number, value=-1)
        self.second.add_(squares / weight - self._square(moved))
        self.mean.add_(moved)

    def _square(self, row: Tensor) -> Tensor:
        return torch.outer(row, row) if self.full else row.square()

    def get_extra_state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.updates = state["updates"]


class Normalization(nn.Module):
    """Turns the teacher's embeddings I into what the student predicts, and the student's predictions back.

        none         I
        unit         I / |I|, and the student's row likewise divided by its length
        standardise  (I - mean) / deviation, in each of the E dimensions
        whiten       (I - mean) W with W the symmetric root of the inverse covariance (ZCA)

    Means and covariances are running statistics of the teacher's embeddings of real and generated images. Terms that
    compare with texts need the student's prediction in the teacher's own space, where the texts are, so the map is
    inverted for them. With `centre`, the teacher's mean is subtracted from both sides first, so that the correlations
    show the differences between images.

    Source of the whitened target: Miles et al. 2024, "VkD: Improving Knowledge Distillation using Orthogonal
    Projections", section 3.3. Differs from it in: running statistics in place of the batch's, since a batch of 8 has a
    covariance of rank 7; variances get a floor.

    Args:
        norm: one of NORMS.
        centre: for terms that compare with texts.
        width: E.
    """

    def __init__(self, norm: str, centre: bool, width: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.norm, self.centre = norm, centre
        self._maps = norm in ("standardise", "whiten")
        self.moments = RunningMoments(width, norm == "whiten", device) if centre or self._maps else None
        if self._maps:
            start = torch.eye(width, device=device) if norm == "whiten" else torch.ones(width, device=device)
            self.register_buffer("into", start)  # from centred embeddings into the space
            self.register_buffer("back", start.clone())

    into: Tensor
    back: Tensor

    @torch.no_grad()
    def observe(self, teacher: Tensor) -> None:
        """Update the statistics with the teacher's embeddings [N, E] of a step, before comparing them."""
        if self.moments is None:
            return
        self.moments.update(self._rows(teacher))
        if self.norm == "standardise":
            deviation = _floored(self.moments.second).sqrt()
            self.into, self.back = deviation.reciprocal(), deviation
        elif self.norm == "whiten" and (self.moments.updates <= REFRESH or self.moments.updates % REFRESH == 0):
            variances, axes = torch.linalg.eigh(self.moments.second.cpu().double())
            deviations = _floored(variances).sqrt()
            self.into.copy_((axes / deviations) @ axes.T)
            self.back.copy_((axes * deviations) @ axes.T)

    def compared(self, pairs: Pairs) -> Pairs:
        """For terms that compare embeddings with embeddings."""
        return Pairs(self._rows(pairs.student), self._target(self._rows(pairs.teacher)))

    def beside_texts(self, pairs: Pairs) -> Pairs:
        """For terms that compare embeddings with texts."""
        return Pairs(self._undone(self._rows(pairs.student)), self._centred(self._rows(pairs.teacher)))

    def _rows(self, embeddings: Tensor) -> Tensor:
        return row_normalized(embeddings) if self.norm == "unit" else embeddings

    def _target(self, rows: Tensor) -> Tensor:
        return _through(self.into.to(rows), rows - self._mean(rows)) if self._maps else rows

    def _undone(self, rows: Tensor) -> Tensor:
        """Inverts the map; centred if the options say so."""
        if not self._maps:
            return self._centred(rows)
        centred = _through(self.back.to(rows), rows)
        return centred if self.centre else centred + self._mean(rows)

    def _centred(self, rows: Tensor) -> Tensor:
        return rows - self._mean(rows) if self.centre else rows

    def _mean(self, like: Tensor) -> Tensor:
        assert self.moments is not None
        return self.moments.mean.to(like)

    def extra_repr(self) -> str:
        return f"norm={self.norm}, centre={self.centre}"


def _through(how: Tensor, rows: Tensor) -> Tensor:
    """Rows [N, E] through a map: [E] of factors, or [E, E]."""
    return rows * how if how.ndim == 1 else rows @ how


def _floored(variances: Tensor) -> Tensor:
    variances = variances.clamp_min(1e-12)
    return variances.add(variances.mean(), alpha=FLOOR)
