"""Terms of D that compare the student's prediction with the teacher's embedding, image by image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.diagnostics import Errors, ExplainedMeter, errors_of
from kd_plugin.distances import DISTANCES
from kd_plugin.terms.base import Term, TermOptions
from kd_plugin.terms.step import DiscriminatorStep
from kd_plugin.types import ROLES, Pairs

__all__ = ["ComparisonOptions", "ComparisonTerm"]


@dataclass(frozen=True)
class ComparisonOptions(TermOptions):
    """distance: a name in DISTANCES."""

    distance: str = option("l1", "l1 or mse (means), l2 (mean of row norms), sse (sum of squares)", choices=DISTANCES)


class ComparisonTerm(Term):
    """A distance between prediction and target: `rows` of the student's embeddings, and of the teacher's.

    Because the target is known, such a term can say which fraction of the teacher's variation D predicts.
    """

    Options = ComparisonOptions
    sides = ("D",)

    def __init__(self, options: ComparisonOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self.distance = DISTANCES[options.distance]
        self._meter = ExplainedMeter(self.distance)

    def rows(self, embeddings: Tensor, texts: Tensor | None) -> Tensor:
        """What is compared, [N, K], made of embeddings [N, E] of either side, each row for itself.

        Args:
            embeddings: normalised; for terms that need texts, not normalised but centred if the options say so.
            texts: [P, E]; None unless the term needs them.
        """
        raise NotImplementedError

    def role_loss(self, pairs: Pairs, other: Pairs, crossed: bool) -> Tensor:
        """A scalar for the images of one role.

        Args:
            pairs: [N, K], this role's rows.
            other: [M, K], the other role's.
            crossed: whether the crossed pairs count in this step.
        """
        return self.distance.between(pairs.student, pairs.teacher)

    def discriminator_loss(self, step: DiscriminatorStep) -> Tensor:
        real, fake = self.compared(step).split(step.real)
        for role, pairs in zip(ROLES, (real, fake), strict=True):
            if role in step.roles:
                self._meter.observe(role, pairs)
        return self.role_loss(real, fake, step.crossed) + self.role_loss(fake, real, step.crossed)

    def compared(self, step: DiscriminatorStep) -> Pairs:
        """[N + M, K] of both sides."""
        pairs = step.beside_texts() if self.needs.texts else step.normalized()
        return Pairs(self.rows(pairs.student, step.texts), self.rows(pairs.teacher, step.texts))

    def recent_errors(self) -> Errors | None:
        """Over the latest training images; None before the first step."""
        return self._meter.errors()

    def errors(self, step: DiscriminatorStep) -> Errors:
        """Over all images of a step."""
        return errors_of(self.compared(step), self.distance)
