"""The matching term: the distribution of the teacher's embeddings of generated images should be that of real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.errors import KDError, arg
from kd_plugin.functional import energy_distance
from kd_plugin.terms.base import TERMS, Needs, Term, TermOptions
from kd_plugin.terms.step import GeneratorStep

__all__ = ["Match", "MatchOptions"]


@dataclass(frozen=True)
class MatchOptions(TermOptions):
    """
    Raises:
        KDError: a pull that is negative or not finite.
    """

    weight: float = option(
        1.0,
        "Weight of the matching term: a generator loss that matches the distribution of the teacher's embeddings of "
        "generated and real images",
        metavar="WEIGHT",
    )
    pull: float = option(
        1.0,
        "Scale the matching term up if its gradient at the generated images is less than this fraction of the "
        "adversarial one; 0: use its weight as given",
        metavar="FRACTION",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.pull) and self.pull >= 0):
            raise KDError(f"{arg('match_pull', self.pull)} is not a fraction; give a number of at least 0, such as 0.3")


@TERMS.register("match")
class Match(Term):
    """The energy distance between the teacher's embeddings of generated and of real images.

    Source: our own; KD-DLGAN has no such term. See `kd_plugin.functional.energy_distance`.
    """

    Options = MatchOptions
    needs = Needs(real_images=True)
    sides = ("G",)

    def __init__(self, options: MatchOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self._pull = options.pull

    @property
    def least_gradient_ratio(self) -> float:
        return self._pull

    def generator_loss(self, step: GeneratorStep) -> Tensor:
        assert step.real is not None
        return energy_distance(step.fake, step.real)
