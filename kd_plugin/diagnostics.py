"""Is anything taught, and how strongly? Two figures that tell distillation from mere regularisation."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kd_plugin.terms.base import DistillLoss
from kd_plugin.types import ROLES, DistillBatch, Distilled, Role

__all__ = ["Transfer", "distances", "gradient_ratio", "share"]


def gradient_ratio(distilled: Distilled, adversarial: Tensor) -> Tensor:
    """How strongly distillation pulls at the tapped features, or at the fake images, in the adversarial loss's pull.

    |d total / d f| / |d adversarial / d f| over f, the real and fake features of the step joined (or the images). Far
    above 1, the discriminator is no longer trained to discriminate; far below, it is not taught.

    Args:
        distilled: of this step, with the weights in `total`.
        adversarial: the loss of D without distillation, of the same forward pass; neither graph is freed.

    Returns:
        A scalar without gradient: infinite where the adversarial gradient is zero, 0 where nothing was distilled.
    """
    if not distilled.outputs:
        return torch.zeros((), device=adversarial.device)
    return ratio_of(squared_pulls(distilled, adversarial))


def squared_pulls(distilled: Distilled, adversarial: Tensor) -> Tensor:
    """The squared norms of both gradients, [2]. Those of several processes add up to those of the joint batch."""
    if not distilled.outputs:
        return adversarial.new_zeros(2, dtype=torch.float32)
    return torch.stack([_squared_pull(loss, distilled.outputs) for loss in (distilled.total, adversarial)])


def ratio_of(squares: Tensor) -> Tensor:
    return (squares[0] / squares[1]).sqrt()


def _squared_pull(loss: Tensor, outputs: tuple[Tensor, ...]) -> Tensor:
    gradients = torch.autograd.grad(loss, outputs, retain_graph=True, materialize_grads=True)
    return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()


class Transfer:
    """The own pairs of the latest steps: what the student said, and what the teacher.

    Args:
        rows: how many images of each role are kept.
        roles: those that are looked at.
    """

    def __init__(self, rows: int = 256, roles: tuple[Role, ...] = ROLES) -> None:
        self._rows, self._roles = rows, roles
        self._batches: dict[tuple[str, Role], deque[DistillBatch]] = {}

    def observe(self, name: str, batch: DistillBatch) -> DistillBatch:
        """Keeps references to the detached rows that the term of this name compares: no copy, no computation."""
        kept = self._batches.setdefault((name, batch.role), deque())
        kept.append(dataclasses.replace(batch, student=batch.student.detach()))
        while sum(len(old.student) for old in kept) - len(kept[0].student) >= self._rows:
            kept.popleft()
        return batch

    @torch.no_grad()
    def explained(self, losses: nn.ModuleDict, weights: Mapping[str, float]) -> dict[str, float]:
        """1 - distance / distance of the best constant, for each term of D; `total` is that of the weighted sums.

        1: the student says what the teacher says. 0 or less: it says no more than one fixed vector would, and what
        distillation does to the training is not distillation. The constants are those of each role, real and fake:
        a discriminator that only tells the two apart explains nothing. Empty before the first step.
        """
        if not losses or any((name, role) not in self._batches for name in losses for role in self._roles):
            return {}
        off = dict.fromkeys(losses, 0.0)  # distance of the student
        constant = dict.fromkeys(losses, 0.0)  # distance of the best constant
        for name, loss in losses.items():
            assert isinstance(loss, DistillLoss)
            for batches in (self._batches[name, role] for role in self._roles):
                student = torch.cat([batch.student for batch in batches])  # [N, K]
                teacher = torch.cat([batch.teacher for batch in batches])
                one, other = distances(loss, student, teacher)
                off[name] += one
                constant[name] += other
        shares = {name: share(off[name], constant[name]) for name in losses}
        total = share(*(sum(weights[name] * part[name] for name in losses) for part in (off, constant)))
        return {"total": total, **shares}


def distances(loss: DistillLoss, student: Tensor, teacher: Tensor) -> tuple[float, float]:
    """From the teacher's rows [N, K]: that of the student's, and that of the best constant."""
    return float(loss.distance(student, teacher)), float(loss.distance(loss.best_constant(teacher), teacher))


def share(off: float, constant: float) -> float:
    """NaN where the teacher says the same of all images: then there is nothing to explain."""
    return 1 - off / constant if constant > 0 else float("nan")
