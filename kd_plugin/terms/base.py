"""What a distillation loss is, the table of them, and the algebra they share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kd_plugin.registry import Registry
from kd_plugin.terms.distances import DISTANCES
from kd_plugin.types import DistillBatch

__all__ = ["LOSSES", "DistillLoss", "correlations", "row_normalised"]

SHORTEST_ROW = 1e-12


class DistillLoss(nn.Module):
    """One term of the discriminator's loss: called once for the real and once for the fake images of a step.

    It is a distance between a prediction, made by `compared` of the student's embeddings, and a target, made by it of
    the teacher's; `compared` is called once for the images of both roles.
    """

    needs_texts: ClassVar[bool] = False  # `compared` reads the texts
    needs_other: ClassVar[bool] = False  # reads DistillBatch.teacher_other, row by row

    def __init__(self, distance: str = "l1") -> None:
        """
        Args:
            distance: a name in DISTANCES.
        """
        super().__init__()
        self.measure = DISTANCES[distance]

    def compared(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        """What is compared, [N, K], of the student's or the teacher's embeddings [N, E]; each row for itself.

        Args:
            texts: [P, E], the teacher's embeddings of the prompts; None where no term needs them.
        """
        raise NotImplementedError

    def forward(self, batch: DistillBatch) -> Tensor:
        """Returns a scalar with gradient into `batch.student` alone."""
        return self.distance(batch.student, batch.teacher)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Between two [N, K]: a scalar."""
        return self.measure.between(prediction, target)

    def best_constant(self, target: Tensor) -> Tensor:
        """[1, K], the one row that is nearest to all rows of `target` in this distance."""
        return self.measure.constant(target)


LOSSES: Registry[type[DistillLoss]] = Registry("distillation loss")


def row_normalised(rows: Tensor) -> Tensor:
    """Each row of [N, P] divided by its L2 norm.

    Computed in float64 for float64, else in float32: norms of half-precision rows overflow. A row shorter than
    1e-12 is left as it is, so that neither it nor its gradient blows up.
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # [N, 1]
    return rows / torch.where(length > SHORTEST_ROW, length, 1.0)


def correlations(embeddings: Tensor, texts: Tensor) -> Tensor:
    """How each image relates to every prompt: [N, E] and [P, E] -> rows of unit length, [N, P].

    Source: KD-DLGAN (arXiv 2303.17158), the matrices C_T and C_S of the correlated distillation.
    """
    return row_normalised(embeddings @ texts.T)
