"""The distances that terms can compare the student with the teacher by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kd_plugin.functional import (
    best_constant_l1,
    best_constant_l2,
    best_constant_squared,
    mean_absolute_difference,
    mean_row_distance,
    mean_squared_difference,
    sum_of_squared_differences,
)
from kd_plugin.registry import Registry

__all__ = ["DISTANCES", "Distance"]


@dataclass(frozen=True)
class Distance:
    """A distance, and the constant prediction that minimises it: the fraction explained is measured from there.

    between:       prediction [N, K] and target [N, K] -> scalar.
    best_constant: target [N, K] -> [1, K].
    """

    between: Callable[[Tensor, Tensor], Tensor]
    best_constant: Callable[[Tensor], Tensor]


DISTANCES: Registry[Distance] = Registry("distance")
DISTANCES.register("l1")(Distance(mean_absolute_difference, best_constant_l1))
DISTANCES.register("l2")(Distance(mean_row_distance, best_constant_l2))
DISTANCES.register("mse")(Distance(mean_squared_difference, best_constant_squared))
DISTANCES.register("sse")(Distance(sum_of_squared_differences, best_constant_squared))
