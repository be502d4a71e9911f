"""The distillation losses. Importing this package registers them."""

from kd_plugin.terms.agkd import AGKD
from kd_plugin.terms.base import LOSSES, DistillLoss
from kd_plugin.terms.cgkd import CGKD
from kd_plugin.terms.distances import DISTANCES
from kd_plugin.terms.diversity import Diversity

__all__ = ["AGKD", "CGKD", "DISTANCES", "DIVERSITY", "LOSSES", "MATCH", "DistillLoss", "Diversity", "reads_texts"]

# The terms of the generator: no distances between student and teacher.
DIVERSITY, MATCH = "diversity", "match"


def reads_texts(term: str) -> bool:
    """Whether the term of this name compares images with prompts."""
    return term == DIVERSITY or (term in LOSSES and LOSSES[term].needs_texts)
