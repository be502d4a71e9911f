"""Aggregated generative knowledge distillation: make the discriminator's features agree with the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.distances import DISTANCES
from kd_plugin.terms.base import TERMS, Needs
from kd_plugin.terms.comparison import ComparisonOptions, ComparisonTerm
from kd_plugin.types import Pairs

__all__ = ["AGKD", "AGKDOptions"]


@dataclass(frozen=True)
class AGKDOptions(ComparisonOptions):
    """The options of aggregated distillation."""

    weight: float = option(1.0, "Weight of aggregated distillation (image embeddings)", metavar="WEIGHT")
    distance: str = option(
        "l1",
        "AGKD: l1 or mse (means over batch and width), l2 (mean of the rows' norms), sse (sum of squares)",
        key="distance",
        choices=DISTANCES,
    )


@TERMS.register("agkd")
class AGKD(ComparisonTerm):
    """Own pairs |I(a) - D^f(a)|, plus, in a step that crosses, crossed pairs |I(b) - D^f(a)|.

    a are the images of one role and b, row by row, those of the other: over both roles this gives the paper's four
    terms. The crossed pairs ask real and generated features to agree, which makes telling them apart harder.

    Source: KD-DLGAN (arXiv 2303.17158), L_AGKD. Differs from the paper in: |.| is the mean over batch and width, so
    that one weight serves teachers of all widths; other distances can be chosen.
    """

    Options = AGKDOptions
    needs = Needs(other_batch=True)

    def rows(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        return embeddings

    def role_loss(self, pairs: Pairs, other: Pairs, crossed: bool) -> Tensor:
        loss = self.distance.between(pairs.student, pairs.teacher)
        return loss + self.distance.between(pairs.student, other.teacher) if crossed else loss
