"""The records that the plug-in's parts pass to each other. All are frozen; none owns a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["ROLES", "Captured", "Distilled", "Pairs", "Role", "StageView"]

Role = Literal["real", "fake"]
ROLES: tuple[Role, Role] = ("real", "fake")


@dataclass(frozen=True)
class Captured:
    """What one `capture(role)` block collected.

    features: [N, F], of the tapped layers side by side, attached to D's graph.
    outputs:  what the layers returned, call by call: gradients are measured there. Of calls with real and generated
              images together, with the role that comes first.
    seen:     [N, C, H, W], what D was given (augmented), detached; None if D's input is not such a tensor.
    clean:    [N, C, H, W] in [-1, 1], before augmentation; None if the caller did not pass it.
    keys:     [N] integers, one for each distinct clean image; None: embeddings are not cached.
    blocked:  tells why no gradient can reach D from the features now; empty if one can.
    """

    features: Tensor
    outputs: tuple[Tensor, ...]
    seen: Tensor | None
    clean: Tensor | None = None
    keys: Tensor | None = None
    blocked: Callable[[], str] = str


@dataclass(frozen=True)
class Pairs:
    """Student and teacher, row by row, for the same images: embeddings, or what a term makes of them to compare.

    student: [N, E] projected discriminator features, with gradient.
    teacher: [N, E] the teacher's, without.
    """

    student: Tensor
    teacher: Tensor

    def __len__(self) -> int:
        return len(self.student)

    def split(self, first: int) -> tuple[Pairs, Pairs]:
        """The first `first` rows, and the others."""
        sizes = [first, len(self) - first]
        student, teacher = torch.split(self.student, sizes), torch.split(self.teacher, sizes)
        return Pairs(student[0], teacher[0]), Pairs(student[1], teacher[1])


@dataclass(frozen=True)
class StageView:
    """A stage of the teacher as a term reads it.

    stage: its name.
    grid:  its map is averaged to [N, C, grid, grid]; 0: as it is, [N, C, h, w].
    """

    stage: str
    grid: int = 0

    def of(self, features: Tensor) -> Tensor:
        """Of the stage's map [N, C, h, w]."""
        return nn.functional.adaptive_avg_pool2d(features, self.grid) if self.grid else features


@dataclass(frozen=True)
class Distilled:
    """The result of a step.

    total:   what the host adds to its loss.
    terms:   the terms by name: unweighted, detached scalars; of terms that report parts, these as `name/part`.
    outputs: the outputs of the tapped layer, real and fake, attached to D's graph; for terms of G, the generated
             images. `gradient_ratio` measures there.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()

    def __add__(self, other: Distilled) -> Distilled:
        """The sum of terms measured at the same outputs."""
        return Distilled(self.total + other.total, {**self.terms, **other.terms}, self.outputs or other.outputs)
