"""The terms of the loss. Importing this package registers the built-in ones, in the order in which they are logged."""

from kd_plugin.terms.agkd import AGKD
from kd_plugin.terms.base import TERMS, Needs, Term, TermInfo, TermOptions
from kd_plugin.terms.cgkd import CGKD
from kd_plugin.terms.comparison import ComparisonOptions, ComparisonTerm
from kd_plugin.terms.critic import Critic
from kd_plugin.terms.diversity import Diversity
from kd_plugin.terms.match import Match
from kd_plugin.terms.step import DiscriminatorStep, GeneratorStep

__all__ = [
    "AGKD",
    "CGKD",
    "TERMS",
    "ComparisonOptions",
    "ComparisonTerm",
    "Critic",
    "DiscriminatorStep",
    "Diversity",
    "GeneratorStep",
    "Match",
    "Needs",
    "Term",
    "TermInfo",
    "TermOptions",
]
