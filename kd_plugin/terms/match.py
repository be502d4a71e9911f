"""The matching term: what the teacher sees in generated images should be distributed as what it sees in real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.ranges import FRACTION, Range
from kd_plugin.config.schema import option
from kd_plugin.diffaugment import NONE
from kd_plugin.set_distances import SET_DISTANCES
from kd_plugin.terms.base import TERMS
from kd_plugin.terms.memory import Memory
from kd_plugin.terms.stage_choice import StageOptions, StageTerm, joint
from kd_plugin.terms.step import GeneratorStep
from kd_plugin.types import StageView

__all__ = ["Match", "MatchOptions"]


@dataclass(frozen=True)
class MatchOptions(StageOptions):
    """The options of matching."""

    weight: float = option(
        1.0,
        "Weight of the matching term: a generator loss that matches the distribution of the teacher's features of "
        "generated and real images",
        metavar="WEIGHT",
    )
    augment: str = option(
        NONE,
        "Augmentation of what matching sees, as of the critic; with the same one as the critic the teacher looks once "
        "for both",
        metavar="auto|POLICY",
    )
    distance: str = option(
        "drift",
        "What matching compares by: drift, the field that draws each generated image to the nearest real ones; energy, "
        "the energy distance",
        choices=SET_DISTANCES,
    )
    pull: float = option(
        1.0,
        "Scale the matching term up if its gradient at the generated images is less than this fraction of the "
        "adversarial one; 0: use its weight as given",
        FRACTION,
        metavar="FRACTION",
    )
    memory: int = option(
        128,
        "Real images of earlier steps that generated images are matched to, besides those of the step; 0: none",
        Range(0, noun="number of images"),
        metavar="N",
    )


@TERMS.register("match")
class Match(StageTerm):
    """The distance between the teacher's features of generated and of real images, as sets.

    Of a stage, the map is averaged in a grid of cells; the distance is that of the cells [N, C] of one place, averaged
    over the places. The loss is the mean over the embedding and the stages.

    A mean over the few real images of one step is noisy. With a memory, the latest ones of earlier steps, from all
    processes, count beside them: the loss is that of a larger real batch.

    Source: our own; KD-DLGAN has no such term. See `energy_distance` and, for Deng et al.'s "Generative Modeling via
    Drifting" (arXiv 2602.04770), who match in the features of several stages and places, `drift_loss`.
    """

    Options = MatchOptions

    @staticmethod
    def rows(features: Tensor) -> Tensor:
        """[N, C, g, g] -> [g g, N, C]; embeddings [N, E] as they are."""
        return features if features.ndim == 2 else features.flatten(2).permute(2, 0, 1)

    def __init__(self, options: MatchOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self._pull, self.distance = options.pull, SET_DISTANCES[options.distance]

    def choose_stages(self, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[StageView, ...]:
        views = super().choose_stages(shapes)
        assert isinstance(self.options, MatchOptions)
        self._memory = Memory(self.options.memory, self.row_shapes) if self.options.memory else None
        return views

    @property
    def least_gradient_ratio(self) -> float:
        return self._pull

    def generator_loss(self, step: GeneratorStep) -> Tensor | Mapping[str, Tensor]:
        fake, real = self.fake(step), self.real(step)
        if self._memory is not None:
            real = self._memory.joined(real)
        return joint({name: self.distance(self.rows(fake[name]), self.rows(real[name])) for name in fake})
