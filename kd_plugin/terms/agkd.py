"""Aggregated generative knowledge distillation: make the discriminator's features agree with the teacher's."""

from __future__ import annotations

from torch import Tensor

from kd_plugin.terms.base import LOSSES, DistillLoss
from kd_plugin.types import DistillBatch

__all__ = ["AGKD"]


@LOSSES.register("agkd")
class AGKD(DistillLoss):
    """Own pairs |I(a) - D^f(a)|, plus, where the coin says so, crossed pairs |I(b) - D^f(a)|.

    a are the images of this role and b, row by row, those of the other: over both roles this gives the paper's four
    terms. The crossed pairs ask real and fake features to agree, which makes telling them apart harder.

    Source: KD-DLGAN (arXiv 2303.17158), L_AGKD. Differs from the paper in: |.| is the mean over batch and width, so
    that one weight serves teachers of all widths; other distances can be chosen.
    """

    needs_other = True

    def forward(self, batch: DistillBatch) -> Tensor:
        loss = self.distance(batch.student, batch.teacher)
        if batch.coin:
            loss = loss + self.distance(batch.student, batch.teacher_other)
        return loss

    def compared(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        return embeddings
