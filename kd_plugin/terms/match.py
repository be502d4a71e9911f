"""The matching term: what the teacher sees in generated images should be distributed as what it sees in real ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.errors import KDError, arg, nearest
from kd_plugin.functional import energy_distance
from kd_plugin.terms.base import TERMS, Needs, Term, TermOptions
from kd_plugin.terms.step import GeneratorStep
from kd_plugin.types import StageView

__all__ = ["Match", "MatchOptions"]

EMBEDDING, STAGES = "embedding", "stages"  # of the option `on`
AUTO = "auto"  # of the option `grid`
FINE, COARSE = 4, 2  # grids that `auto` chooses between
FINE_FROM = 8  # places on a side of the map: fewer, and a fine cell would be a single place


@dataclass(frozen=True)
class MatchOptions(TermOptions):
    """
    Raises:
        KDError: a pull that is negative or not finite, a grid that is not a number of cells, or nothing to match.
    """

    weight: float = option(
        1.0,
        "Weight of the matching term: a generator loss that matches the distribution of the teacher's features of "
        "generated and real images",
        metavar="WEIGHT",
    )
    on: str = option(
        EMBEDDING,
        "What is matched: embedding; stages, that is, the embedding and four of the teacher's intermediate stages or "
        "fewer, spread over its depth; or names of stages, and embedding, joined by commas",
        metavar="embedding|stages|NAMES",
    )
    grid: str = option(
        AUTO,
        "Cells on a side in which a stage is averaged and matched, cell by cell; auto: 4, or 2 where the stage has "
        "fewer than 8 places on a side",
        metavar="auto|N",
    )
    pull: float = option(
        1.0,
        "Scale the matching term up if its gradient at the generated images is less than this fraction of the "
        "adversarial one; 0: use its weight as given",
        metavar="FRACTION",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.pull) and self.pull >= 0):
            raise KDError(f"{arg('match_pull', self.pull)} is not a fraction; give a number of at least 0, such as 0.3")
        if self.grid != AUTO and not (self.grid.isdecimal() and int(self.grid) >= 1):
            raise KDError(f"{arg('match_grid', self.grid)} is not a number of cells; give auto, or 1 or more")
        if not self.names:
            raise KDError(
                f"{arg('match_on', self.on)} names nothing to match; give embedding, stages, or names of stages"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What `on` lists; `stages` stands for itself."""
        return tuple(name.strip() for name in self.on.split(",") if name.strip())


@TERMS.register("match")
class Match(Term):
    """The energy distance between the teacher's features of generated and of real images.

    Of a stage, the map is averaged in a grid of cells; the distance is that of the cells [N, C] of one place, averaged
    over the places. The loss is the mean over the embedding and the stages.

    Source: our own; KD-DLGAN has no such term. See `kd_plugin.functional.energy_distance`. Matching in the features of
    several stages and places: Deng et al., "Generative Modeling via Drifting" (arXiv 2602.04770), with another loss.
    """

    Options = MatchOptions
    needs = Needs(real_images=True)
    sides = ("G",)

    def __init__(self, options: MatchOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self._names, self._grid, self._pull = options.names, options.grid, options.pull
        self._embedding = EMBEDDING in options.names or STAGES in options.names
        self._views: tuple[StageView, ...] = ()
        self.needs = dataclasses.replace(self.needs, stages=options.names != (EMBEDDING,))

    @property
    def least_gradient_ratio(self) -> float:
        return self._pull

    def choose_stages(self, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[StageView, ...]:
        chosen = dict.fromkeys(name for name in self._names if name not in (EMBEDDING, STAGES))
        if STAGES in self._names:
            chosen = dict.fromkeys((*spread(tuple(shapes)), *chosen))
        self._views = tuple(self._view(name, shapes) for name in chosen)
        self.parts = (*([EMBEDDING] if self._embedding else []), *chosen)
        return self._views

    def _view(self, name: str, shapes: Mapping[str, tuple[int, int, int]]) -> StageView:
        if name not in shapes:
            known = (EMBEDDING, *shapes)
            raise KDError(
                f"{arg('match_on', name)}: the teacher has no such stage{nearest(name, known)}; give {STAGES}, or some "
                f"of {', '.join(known)}"
            )
        side = min(shapes[name][1:])
        if self._grid == AUTO:
            return StageView(name, FINE if side >= FINE_FROM else min(COARSE, side))
        if int(self._grid) > side:
            raise KDError(
                f"{arg('match_grid', self._grid)}: the teacher's {name} has {side} places on a side; give a grid of at "
                f"most {side}, or {arg('match_grid', AUTO)}"
            )
        return StageView(name, int(self._grid))

    def generator_loss(self, step: GeneratorStep) -> Tensor | Mapping[str, Tensor]:
        assert step.real is not None
        parts = {EMBEDDING: energy_distance(step.fake, step.real)} if self._embedding else {}
        for view in self._views:
            parts[view.stage] = energy_distance(cells(step.fake_stages[view]), cells(step.real_stages[view]))
        return parts if self._views else parts[EMBEDDING]


def spread(names: tuple[str, ...], most: int = 4) -> tuple[str, ...]:
    """At most `most` of the names, evenly spaced, the last one among them."""
    count = min(len(names), most)
    return tuple(names[(number + 1) * len(names) // count - 1] for number in range(count))


def cells(grid: Tensor) -> Tensor:
    """[N, C, g, g] -> [g g, N, C]."""
    return grid.flatten(2).permute(2, 0, 1)
