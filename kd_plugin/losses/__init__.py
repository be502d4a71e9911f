"""The distillation losses. Importing this package registers them."""

from kd_plugin.losses.agkd import AGKD
from kd_plugin.losses.base import LOSSES, DistillLoss
from kd_plugin.losses.cgkd import CGKD
from kd_plugin.losses.distances import DISTANCES
from kd_plugin.losses.diversity import Diversity

__all__ = ["AGKD", "CGKD", "DISTANCES", "LOSSES", "DistillLoss", "Diversity"]
