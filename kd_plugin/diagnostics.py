"""Two numbers that distinguish distillation from mere regularisation: fraction explained and gradient ratio."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from kd_plugin.distances import Distance
from kd_plugin.types import ROLES, Distilled, Pairs, Role

__all__ = ["Errors", "ExplainedMeter", "errors_of", "fraction_explained", "gradient_ratio", "ratio_of", "squared_norms"]


def gradient_ratio(distilled: Distilled, adversarial: Tensor) -> Tensor:
    """Norm of the distillation gradient over that of the adversarial one, at the tapped features or the fake images.

    |d total / d f| / |d adversarial / d f| over f, the real and fake features of the step joined (or the images). Far
    above 1, distillation dominates the adversarial loss; far below, it has little effect.

    Args:
        distilled: of this step, with the weights included in `total`.
        adversarial: the loss without distillation, from the same forward pass; neither graph is freed.

    Returns:
        A scalar without gradient: infinite if the adversarial gradient is zero, 0 if nothing was distilled.
    """
    if not distilled.outputs:
        return torch.zeros((), device=adversarial.device)
    return ratio_of(squared_norms(distilled, adversarial))


def squared_norms(distilled: Distilled, adversarial: Tensor) -> Tensor:
    """The squared norms of both gradients, [2]. Summed over processes, they are those of the joint batch."""
    if not distilled.outputs:
        return adversarial.new_zeros(2, dtype=torch.float32)
    return torch.stack([_squared_norm(loss, distilled.outputs) for loss in (distilled.total, adversarial)])


def ratio_of(squares: Tensor) -> Tensor:
    return (squares[0] / squares[1]).sqrt()


def _squared_norm(loss: Tensor, outputs: tuple[Tensor, ...]) -> Tensor:
    gradients = torch.autograd.grad(loss, outputs, retain_graph=True, materialize_grads=True)
    return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()


class Errors(NamedTuple):
    """Distances from the teacher: the student's, and that of the best constant prediction."""

    student: float
    constant: float


def errors_of(pairs: Pairs, distance: Distance) -> Errors:
    """Of rows [N, K]. The constant is fitted to these very rows, so the fraction explained cannot flatter."""
    constant = distance.best_constant(pairs.teacher)
    return Errors(
        float(distance.between(pairs.student, pairs.teacher)), float(distance.between(constant, pairs.teacher))
    )


def fraction_explained(student: float, constant: float) -> float:
    """1 - error of the student / error of the best constant; NaN if the teacher says the same of all images."""
    return 1 - student / constant if constant > 0 else float("nan")


class ExplainedMeter:
    """The errors of one term's predictions over its latest images.

    Args:
        distance: the term's.
        rows: the number of images of each role to keep.
    """

    def __init__(self, distance: Distance, rows: int = 256) -> None:
        self._distance, self._rows = distance, rows
        self._recent: dict[Role, deque[Pairs]] = {}

    def observe(self, role: Role, pairs: Pairs) -> None:
        """Keeps references to the detached rows: no copy, no computation."""
        kept = self._recent.setdefault(role, deque())
        kept.append(Pairs(pairs.student.detach(), pairs.teacher))
        while sum(len(old) for old in kept) - len(kept[0]) >= self._rows:
            kept.popleft()

    @torch.no_grad()
    def errors(self) -> Errors | None:
        """Summed over both roles; None before both were observed.

        The constants are those of each role: a discriminator that only tells real from fake explains nothing.
        """
        if any(role not in self._recent for role in ROLES):
            return None
        student = constant = 0.0
        for role in ROLES:
            kept = self._recent[role]
            joined = Pairs(torch.cat([pairs.student for pairs in kept]), torch.cat([pairs.teacher for pairs in kept]))
            errors = errors_of(joined, self._distance)
            student += errors.student
            constant += errors.constant
        return Errors(student, constant)
