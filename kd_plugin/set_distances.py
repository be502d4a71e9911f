"""How matching compares a set of generated rows with a set of real ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kd_plugin.drifting import drift_loss
from kd_plugin.functional import energy_distance
from kd_plugin.registry import Registry

__all__ = ["SET_DISTANCES", "SetDistance"]

SetDistance = Callable[[Tensor, Tensor], Tensor]  # [N, E] and [M, E], or [K, N, E] and [K, M, E], to a scalar

SET_DISTANCES: Registry[SetDistance] = Registry("distance between sets")
SET_DISTANCES.register("energy")(energy_distance)
SET_DISTANCES.register("drift")(drift_loss)
