"""The records handed from one part of the plug-in to the next. All are frozen; none owns a parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

__all__ = ["ROLES", "Captured", "DistillBatch", "Distilled", "Pairs", "Role"]

Role = Literal["real", "fake"]
ROLES: tuple[Role, Role] = ("real", "fake")


@dataclass(frozen=True)
class Captured:
    """What one `capture(role)` block saw.

    features: [N, F] or [N, F, h, w], the tapped layer's output, attached to D's graph; several layers' side by side.
    outputs:  the same as the layers gave it, call by call: where gradients are measured.
    seen:     [N, C, H, W], what D was given (augmented), detached; None where D's input is no such tensor.
    clean:    [N, C, H, W] before augmentation, in [-1, 1], or None where the caller did not say.
    keys:     [N] whole numbers, one for each different clean image; None: their embeddings are not kept.
    """

    features: Tensor
    outputs: tuple[Tensor, ...]
    seen: Tensor | None
    clean: Tensor | None = None
    keys: Tensor | None = None


@dataclass(frozen=True)
class Pairs:
    """Of the same images, row by row: embeddings, or what a loss makes of them to compare.

    student: [N, E] projected discriminator features, with gradient.
    teacher: [N, E] the teacher's, without.
    """

    student: Tensor
    teacher: Tensor


@dataclass(frozen=True)
class DistillBatch:
    """All that a distillation loss looks at, for one role: rows as its `compared` makes them of embeddings.

    student:       [N, K] of this role's images, with gradient.
    teacher:       [N, K] of the same images, without gradient.
    teacher_other: [M, K] of the other role's images (for the crossed pairs).
    coin:          whether the crossed pairs count in this step (q < p, q uniform in [0, 1)).
    """

    role: Role
    student: Tensor
    teacher: Tensor
    teacher_other: Tensor
    coin: bool


@dataclass(frozen=True)
class Distilled:
    """The result of a step.

    total:    what the host adds to its loss.
    terms:    the terms by name: unweighted, detached scalars.
    outputs:  the tapped layer's, real and fake, attached to D's graph; of the generator's term the fake images: where
              `gradient_ratio` measures.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()

    def __add__(self, other: Distilled) -> Distilled:
        """Of terms measured at the same outputs."""
        return Distilled(self.total + other.total, {**self.terms, **other.terms}, self.outputs or other.outputs)
