"""Correlated generative knowledge distillation: keep the teacher's image-text correlations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.distances import DISTANCES
from kd_plugin.errors import PromptError, arg
from kd_plugin.functional import correlations
from kd_plugin.terms.base import TERMS, Needs
from kd_plugin.terms.comparison import ComparisonOptions, ComparisonTerm

__all__ = ["CGKD", "CGKDOptions"]


@dataclass(frozen=True)
class CGKDOptions(ComparisonOptions):
    """The options of correlated distillation."""

    weight: float = option(1.0, "Weight of correlated distillation (image-text correlations)", metavar="WEIGHT")
    distance: str = option("l1", "CGKD: the same, over prompts instead of width", choices=DISTANCES)


@TERMS.register("cgkd")
class CGKD(ComparisonTerm):
    """|C_T - C_S|, with C_T = rownorm(I(a) T') of the teacher and C_S = rownorm(D^f(a) T') of the student.

    Source: KD-DLGAN (arXiv 2303.17158), L_ckd of L_CGKD. Differs from the paper in: |.| is the mean over batch and
    prompts; a sum over 32 prompts was seen to drown the adversarial gradient.

    Raises:
        PromptError: fewer than 2 prompts: with a single one every row is +1 or -1 and nothing can be learned.
    """

    Options = CGKDOptions
    needs = Needs(texts=True)
    log_format = "<6.4f"

    def rows(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        if texts is None or len(texts) < 2:
            raise PromptError(f"{arg('prompts')}: correlated distillation (cgkd) needs at least 2 prompts")
        return correlations(embeddings, texts)
