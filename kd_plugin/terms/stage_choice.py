"""Terms of G that read the teacher's stages: which ones, and averaged in which cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_plugin.config.schema import option
from kd_plugin.diffaugment import ALL, NONE, DiffAugment
from kd_plugin.errors import KDError, arg, nearest
from kd_plugin.terms.base import Needs, Term, TermOptions
from kd_plugin.terms.step import GeneratorStep
from kd_plugin.types import StageView

__all__ = ["AUTO", "EMBEDDING", "STAGES", "StageChoice", "StageOptions", "StageTerm", "joint", "spread"]

EMBEDDING, STAGES = "embedding", "stages"  # of the option `on`
AUTO = "auto"  # of the options `on` (stages, or the embedding where the teacher has none), `grid` and `augment`
AUTO_CELLS = 4  # cells on a side: 2 are worse on drawings, and as good on photos (studies/notebook.md)
MOST = 4  # stages that `stages` stands for


@dataclass(frozen=True)
class StageOptions(TermOptions):
    """
    Raises:
        KDError: a grid that is not a number of cells, nothing to read, or an unknown augmentation.
    """

    on: str = option(
        AUTO,
        "What is compared: embedding; stages, that is, the embedding and up to four of the teacher's intermediate "
        "stages, spread over its depth, cell by cell; names of stages, and embedding, joined by commas; or auto: "
        "stages if the teacher has any, else embedding",
        metavar="auto|embedding|stages|NAMES",
    )
    grid: str = option(
        AUTO,
        "Cells on a side in which a stage is averaged; auto: 4, or as many as the stage has places",
        metavar="auto|N",
    )
    augment: str = option(
        AUTO,
        "Augmentation of what this term sees: some of color, translation, cutout, or none; auto: all three, but none "
        "with --kd-view=seen",
        metavar="auto|POLICY",
    )

    def __post_init__(self) -> None:
        if self.grid != AUTO and not (self.grid.isdecimal() and int(self.grid) >= 1):
            raise KDError(f"{arg(f'{self.term}_grid', self.grid)} is not a number of cells; give auto, or 1 or more")
        if not self.names:
            raise KDError(
                f"{arg(f'{self.term}_on', self.on)} names nothing; give embedding, stages, or names of stages"
            )
        if self.augment != AUTO:
            DiffAugment(self.augment, arg(f"{self.term}_augment", self.augment))

    @property
    def names(self) -> tuple[str, ...]:
        """What `on` lists, each once; `stages` stands for itself."""
        return tuple(dict.fromkeys(name.strip() for name in self.on.split(",") if name.strip()))


class StageChoice:
    """The embedding and the views of stages that the options ask for.

    Args:
        options: of the term.
        shapes: C, h and w of each of the teacher's stages, early to late; empty: only the embedding can be asked for.
        cells: on a side at most, with the grid `auto`.

    Raises:
        KDError: an unknown stage (with the nearest), or a grid that is finer than a stage.
    """

    def __init__(
        self, options: StageOptions, shapes: Mapping[str, tuple[int, int, int]], cells: int = AUTO_CELLS
    ) -> None:
        self._options, self._auto_cells = options, cells
        asked = set(options.names)
        named = tuple(name for name in options.names if name not in (EMBEDDING, STAGES, AUTO))
        chosen = dict.fromkeys((*(() if asked.isdisjoint({STAGES, AUTO}) else spread(tuple(shapes))), *named))
        self.embedding = not asked.isdisjoint({EMBEDDING, STAGES, AUTO})
        self.views = tuple(self._view(name, shapes) for name in chosen)
        self.cells = {view.stage: (shapes[view.stage][0], view.grid, view.grid) for view in self.views}  # C, g, g

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is read."""
        return (*([EMBEDDING] if self.embedding else []), *(view.stage for view in self.views))

    def of(self, embeddings: Tensor, stages: Mapping[StageView, Tensor]) -> dict[str, Tensor]:
        """By part: [N, E], and [N, C, g, g] of each stage."""
        return ({EMBEDDING: embeddings} if self.embedding else {}) | {view.stage: stages[view] for view in self.views}

    def _view(self, name: str, shapes: Mapping[str, tuple[int, int, int]]) -> StageView:
        options = self._options
        if name not in shapes:
            known = (EMBEDDING, *shapes)
            raise KDError(
                f"{arg(f'{options.term}_on', name)}: the teacher has no such stage{nearest(name, known)}; give "
                f"{STAGES}, which every teacher that has stages knows, or some of {', '.join(known)}"
            )
        side = min(shapes[name][1:])
        if options.grid == AUTO:
            return StageView(name, min(self._auto_cells, side))
        if int(options.grid) > side:
            key = f"{options.term}_grid"
            raise KDError(
                f"{arg(key, options.grid)}: the teacher's {name} has {side} places on a side; give at most {side}, or "
                f"{arg(key, AUTO)}"
            )
        return StageView(name, int(options.grid))


class StageTerm(Term):
    """Compares generated and real images in the embedding and the stages that its options name."""

    Options = StageOptions
    needs = Needs(real_images=True)
    sides = ("G",)
    auto_cells: ClassVar[int] = AUTO_CELLS  # on a side at most, with the grid `auto`

    def __init__(self, options: StageOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self._options, self._embed_dim = options, embed_dim
        self.needs = Needs(real_images=True, stages=options.names != (EMBEDDING,))
        self.stages_if_any = options.names == (AUTO,)
        if not self.needs.stages:
            self.choose_stages({})

    def choose_stages(self, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[StageView, ...]:
        self._choice = StageChoice(self._options, shapes, self.auto_cells)
        self.parts = self._choice.parts if len(self._choice.parts) > 1 else ()
        return self._choice.views

    def augmentation(self, view: str) -> str:
        if self._options.augment != AUTO:
            return self._options.augment
        return NONE if view == "seen" else ALL

    @property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one image's row in `fake()` and `real()`, by name."""
        return {name: self._choice.cells.get(name, (self._embed_dim,)) for name in self._choice.parts}

    def fake(self, step: GeneratorStep) -> dict[str, Tensor]:
        """By name: the embeddings [N, E], and the cells [N, C, g, g] of each stage."""
        return self._choice.of(step.fake, step.fake_stages)

    def real(self, step: GeneratorStep) -> dict[str, Tensor]:
        assert step.real is not None
        return self._choice.of(step.real, step.real_stages)


def joint(parts: Mapping[str, Tensor]) -> Tensor | Mapping[str, Tensor]:
    """The loss that has these parts; a single one is the loss itself."""
    return parts if len(parts) > 1 else next(iter(parts.values()))


def spread(names: tuple[str, ...]) -> tuple[str, ...]:
    """At most MOST of the names, evenly spaced, the last one among them."""
    count = min(len(names), MOST)
    return tuple(names[(number + 1) * len(names) // count - 1] for number in range(count))
