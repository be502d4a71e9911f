"""Matching with another distance, or of other statistics, as terms: `train.py --kd-import=studies/kernel_terms.py`.

`--kd-match=0 --kd-laplace=1` or `--kd-deviations=1`; each has the options of matching (`--kd-laplace-on`, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.terms.base import TERMS
from kd_plugin.terms.match import Match, MatchOptions
from studies.kernels import laplace_discrepancy, means_and_deviations

__all__ = ["Deviations", "Laplace"]


@dataclass(frozen=True)
class OffOptions(MatchOptions):
    """The options of matching, off by default."""

    weight: float = option(0.0, "Weight of this form of matching with another distance", metavar="WEIGHT")


@TERMS.register("laplace")
class Laplace(Match):
    """Matching by the squared maximum mean discrepancy with Laplace kernels of several widths."""

    Options = OffOptions

    def __init__(self, options: OffOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self.distance = laplace_discrepancy


@TERMS.register("deviations")
class Deviations(Match):
    """Matching of each cell's mean and standard deviation, over the 2x2 finer cells in it."""

    Options = OffOptions
    auto_cells = 8

    @staticmethod
    def rows(features: Tensor) -> Tensor:
        return Match.rows(features if features.ndim == 2 else means_and_deviations(features))
