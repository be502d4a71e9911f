"""The distillation losses. Importing this package registers them."""

from kd_plugin.losses.agkd import AGKD
from kd_plugin.losses.base import LOSSES, DistillLoss
from kd_plugin.losses.cgkd import CGKD
from kd_plugin.losses.distances import DISTANCES
from kd_plugin.losses.diversity import Diversity
from kd_plugin.losses.goals import GOALS

__all__ = ["AGKD", "CGKD", "DISTANCES", "DIVERSITY", "GOALS", "LOSSES", "DistillLoss", "Diversity", "reads_texts"]

DIVERSITY = "diversity"  # the one term that is no distance between student and teacher


def reads_texts(term: str) -> bool:
    """Whether the term of this name compares images with prompts."""
    return term == DIVERSITY or LOSSES[term].needs_texts
