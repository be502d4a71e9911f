"""The diversity term: generated images should have different correlations with the prompts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.functional import correlations
from kd_plugin.terms.base import TERMS, Needs, Term, TermOptions
from kd_plugin.terms.step import DiscriminatorStep, GeneratorStep

__all__ = ["Diversity", "DiversityOptions", "mean_cosine"]

PLACES = ("generator", "student", "off")


@dataclass(frozen=True)
class DiversityOptions(TermOptions):
    """on: where the term acts."""

    weight: float = option(0.0, "Weight of the diversity term", metavar="WEIGHT")
    on: str = option(
        "generator",
        "Where the diversity term acts: on the generator, through the frozen teacher; or on D's own features of "
        "generated images",
        choices=PLACES,
    )

    @property
    def active(self) -> bool:
        return super().active and self.on != "off"


@TERMS.register("diversity")
class Diversity(Term):
    """The mean cosine between the correlations C_T of different generated images.

    It depends on the generator and the frozen teacher alone, so it belongs in the *generator's* loss, with the gradient
    taken through the teacher. In the discriminator's loss it would have no gradient; `on="student"` applies it to the
    discriminator's own features instead.

    Source: KD-DLGAN (arXiv 2303.17158), L_pd of L_CGKD. Differs from the paper in: the mean over pairs instead of the
    sum, so that the weight keeps its meaning when the batch grows.
    """

    Options = DiversityOptions
    needs = Needs(texts=True)

    def __init__(self, options: DiversityOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self.sides = ("D",) if options.on == "student" else ("G",)

    def discriminator_loss(self, step: DiscriminatorStep) -> Tensor:
        assert step.texts is not None
        _, fake = step.beside_texts().split(step.real)
        return mean_cosine(correlations(fake.student, step.texts))

    def generator_loss(self, step: GeneratorStep) -> Tensor:
        assert step.texts is not None
        return mean_cosine(correlations(step.fake, step.texts))


def mean_cosine(rows: Tensor) -> Tensor:
    """The mean inner product over the N (N - 1) ordered pairs of different rows of [N, P], each of unit length.

    0 for a single row.
    """
    # Over all pairs the inner products add up to |sum of rows|^2; those of a row with itself are subtracted.
    pairs = max(len(rows) * (len(rows) - 1), 1)
    return (rows.sum(dim=0).square().sum() - rows.square().sum()) / pairs
