"""Matching with another distance, or of other statistics: `train.py --kd-import=studies/kernel_terms.py`.

`--kd-match-distance=laplace`; or `--kd-match=0 --kd-deviations=1`, with the options of matching (`--kd-deviations-on`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.set_distances import SET_DISTANCES
from kd_plugin.terms.base import TERMS
from kd_plugin.terms.match import Match, MatchOptions
from studies.kernels import laplace_discrepancy, means_and_deviations

__all__ = ["Deviations"]


@dataclass(frozen=True)
class OffOptions(MatchOptions):
    """The options of matching, off by default."""

    weight: float = option(0.0, "Weight of this form of matching", metavar="WEIGHT")


SET_DISTANCES.register("laplace")(laplace_discrepancy)


@TERMS.register("deviations")
class Deviations(Match):
    """Matching of each cell's mean and standard deviation, over the 2x2 finer cells in it."""

    Options = OffOptions
    auto_cells = 8

    @staticmethod
    def rows(features: Tensor) -> Tensor:
        return Match.rows(features if features.ndim == 2 else means_and_deviations(features))
