"""How far a prediction is from its target: the distances that the distillation terms can be made of.

Each knows the one row that is nearest to all rows of a target, the best constant prediction: what a student that knows
nothing of the single image would say. The share that a student explains is measured from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_plugin.registry import Registry

__all__ = ["DISTANCES", "Distance"]


@dataclass(frozen=True)
class Distance:
    """between: [N, K] and [N, K] -> a scalar. constant: a target [N, K] -> [1, K], the best constant prediction."""

    between: Callable[[Tensor, Tensor], Tensor]
    constant: Callable[[Tensor], Tensor]


DISTANCES: Registry[Distance] = Registry("distance")


def _median(target: Tensor) -> Tensor:
    return target.median(dim=0, keepdim=True).values


def _mean(target: Tensor) -> Tensor:
    return target.mean(dim=0, keepdim=True)


def _geometric_median(target: Tensor, rounds: int = 50) -> Tensor:
    """The point with the least sum of distances to the rows: Weiszfeld's iteration, from their mean."""
    point = _mean(target)
    for _ in range(rounds):
        weights = torch.linalg.vector_norm(target - point, dim=1, keepdim=True).clamp_min(1e-12).reciprocal()
        point = (weights * target).sum(dim=0, keepdim=True) / weights.sum()
    return point


def _row_norms(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of the rows' L2 norms. A row that is met exactly has no direction: its gradient is 0, not NaN."""
    squares = (target - prediction).square().sum(dim=1)
    away = squares > 0
    lengths = torch.where(away, squares, torch.ones_like(squares)).sqrt()
    return torch.where(away, lengths, torch.zeros_like(lengths)).mean()


DISTANCES.register("l1")(Distance(lambda a, b: (a - b).abs().mean(), _median))
DISTANCES.register("l2")(Distance(_row_norms, _geometric_median))
DISTANCES.register("mse")(Distance(lambda a, b: (a - b).square().mean(), _mean))
DISTANCES.register("sse")(Distance(lambda a, b: (a - b).square().sum(), _mean))
