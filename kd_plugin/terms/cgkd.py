"""Correlated generative knowledge distillation: keep the teacher's image-text correlations."""

from __future__ import annotations

from torch import Tensor

from kd_plugin.errors import PromptError
from kd_plugin.terms.base import LOSSES, DistillLoss, correlations

__all__ = ["CGKD"]


@LOSSES.register("cgkd")
class CGKD(DistillLoss):
    """|C_T - C_S|, with C_T = rownorm(I(a) T') of the teacher and C_S = rownorm(D^f(a) T') of the student.

    Source: KD-DLGAN (arXiv 2303.17158), L_ckd of L_CGKD. Differs from the paper in: |.| is the mean over batch and
    prompts; a sum over 32 prompts was seen to drown the adversarial gradient.

    Raises:
        PromptError: fewer than 2 prompts; with a single one every row is +1 or -1 and nothing can be learnt.
    """

    needs_texts = True

    def compared(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        if texts is None or len(texts) < 2:
            raise PromptError("--kd-prompts: correlated distillation (cgkd) needs at least 2 prompts")
        return correlations(embeddings, texts)
