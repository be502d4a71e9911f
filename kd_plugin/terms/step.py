"""The inputs of terms: one record per side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from kd_plugin.normalization import Normalization
from kd_plugin.types import ROLES, Pairs, Role, StageView

__all__ = ["DiscriminatorStep", "GeneratorStep"]


@dataclass(frozen=True)
class DiscriminatorStep:
    """A step of D: student and teacher embeddings of its real and generated images.

    pairs:         [N + M, E], embeddings of N real images followed by M generated ones; the student's with gradient.
    real:          N.
    texts:         [P, E], the teacher's embeddings of the prompts; None if no active term needs them.
    crossed:       whether the crossed pairs count in this step (q < p, q uniform in [0, 1)).
    normalization: of the teacher's embeddings.
    roles:         those whose rows are new, with gradient; the others' were seen before (carried distillation).
    """

    pairs: Pairs
    real: int
    texts: Tensor | None
    crossed: bool
    normalization: Normalization
    roles: tuple[Role, ...] = ROLES

    def normalized(self) -> Pairs:
        """[N + M, E], for comparing embeddings with embeddings."""
        return self.normalization.compared(self.pairs)

    def beside_texts(self) -> Pairs:
        """[N + M, E], for comparing embeddings with texts: not normalised, centred if the options say so."""
        return self.normalization.beside_texts(self.pairs)


@dataclass(frozen=True)
class GeneratorStep:
    """A step of G: the teacher's embeddings of its images. With several processes, those of all of them.

    fake:        [N, E], of the generated images, with gradient into them.
    real:        [M, E], of real images, without gradient; None unless an active term needs them.
    texts:       [P, E], of the prompts; None if no active term needs them.
    fake_stages: the views of the teacher's stages that active terms read, [N, C, h, w] each.
    real_stages: the same for the real images, without gradient.
    """

    fake: Tensor
    real: Tensor | None = None
    texts: Tensor | None = None
    fake_stages: Mapping[StageView, Tensor] = field(default_factory=dict)
    real_stages: Mapping[StageView, Tensor] = field(default_factory=dict)

    def detached(self) -> GeneratorStep:
        """The same without gradient."""
        stages = {view: stage.detach() for view, stage in self.fake_stages.items()}
        return dataclasses.replace(self, fake=self.fake.detach(), fake_stages=stages)
