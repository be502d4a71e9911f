"""The protocol of loss terms, and their registry.

A term states which side it acts on, what it needs and which options it has; its flags, its column in the log, its line
in the chart and its part of the state follow from that (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from kd_plugin.config.schema import option
from kd_plugin.diffaugment import NONE
from kd_plugin.registry import Registry
from kd_plugin.terms.step import DiscriminatorStep, GeneratorStep
from kd_plugin.types import StageView

__all__ = ["TERMS", "Needs", "Side", "Term", "TermInfo", "TermOptions"]

Side = Literal["D", "G"]
T = TypeVar("T", bound="type[Term]")


@dataclass(frozen=True)
class Needs:
    """What a term reads besides the teacher's embeddings of the images.

    texts:       the embeddings of the prompts.
    other_batch: the other role's embeddings row by row, so real and generated images must be equal in number.
    real_images: real images in the generator's step.
    stages:      the teacher's intermediate features of the images that a term of G sees.
    """

    texts: bool = False
    other_batch: bool = False
    real_images: bool = False
    stages: bool = False

    @classmethod
    def union(cls, needs: Iterable[Needs]) -> Needs:
        """What several terms need together."""
        rows = [dataclasses.astuple(need) for need in needs]
        return cls(*map(any, zip(*rows, strict=True)))


@dataclass(frozen=True)
class TermOptions:
    """The options of a term; subclasses add their own and override `weight` with its help line and default.

    Numbers are checked against their ranges where the options become those of a KDConfig.
    """

    term: ClassVar[str] = ""  # set by TERMS.register
    weight: float = option(0.0, "Weight of this term", metavar="WEIGHT")

    @property
    def active(self) -> bool:
        """Whether the term is computed at all."""
        return self.weight > 0


class Term(nn.Module):
    """One term of the discriminator's or generator's loss. Subclasses override the loss of each side they act on.

    The parameters of a term of D are trained by D's optimiser (`kd.parameters()` includes them). A term of G that has
    parameters makes an optimiser for them, and trains them by its `training_loss` in every step of G.
    """

    name: ClassVar[str] = ""  # set by TERMS.register
    Options: ClassVar[type[TermOptions]] = TermOptions
    needs: Needs = Needs()  # may be set by __init__, except for `texts`
    label: ClassVar[str] = ""  # of the log's column and the chart's line; empty: the name
    log_format: ClassVar[str] = "<6.3f"
    sides: tuple[Side, ...] = ("D",)  # may be set by __init__, according to the options
    stages_if_any: bool = False  # needs no stages where the teacher has none; may be set by __init__
    parts: tuple[str, ...] = ()  # whose values are logged too, if the loss of G has parts

    def __init__(self, options: TermOptions, embed_dim: int) -> None:
        """
        Args:
            options: an instance of `Options`.
            embed_dim: E, the width of the teacher's embeddings.
        """
        super().__init__()
        self.options = options

    def choose_stages(self, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[StageView, ...]:
        """For terms that need stages: those it reads. Called once, when the term is attached; by default all, as maps.

        Args:
            shapes: C, h and w of each of the teacher's stages, early to late; empty only if `stages_if_any`.

        Raises:
            KDError: the term cannot use these stages.
        """
        return tuple(StageView(name) for name in shapes)

    @property
    def least_gradient_ratio(self) -> float:
        """For terms of G: scaled up if its gradient at G's images is less than this fraction of the adversarial one."""
        return 0.0

    def discriminator_loss(self, step: DiscriminatorStep) -> Tensor:
        """A scalar with gradient into `step.pairs.student` (and the term's own parameters)."""
        raise NotImplementedError

    def generator_loss(self, step: GeneratorStep) -> Tensor | Mapping[str, Tensor]:
        """A scalar with gradient into `step.fake` (and `step.fake_stages`), or parts of that kind.

        The loss is then the mean of the parts, and each is logged as well.
        """
        raise NotImplementedError

    def augmentation(self, view: str) -> str:
        """For terms of G: how the images it sees are augmented, as a policy of DiffAugment.

        Args:
            view: `auto`, `seen` or `clean`; with `seen` the images that the host gives are augmented.
        """
        return NONE

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """For terms of G with parameters: the optimiser that trains them."""
        return None

    def training_loss(self, step: GeneratorStep) -> Tensor:
        """For terms of G with an optimiser: a scalar with gradient into the term's parameters.

        Args:
            step: without gradient.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TermInfo:
    """What a host needs in order to log an active term.

    name:   its value is `Distilled.terms[name]`.
    sides:  the networks whose loss it is added to.
    weight: as set by the user.
    label, log_format: of the log's column.
    parts:  their values are `Distilled.terms[f"{name}/{part}"]`.
    """

    name: str
    sides: tuple[Side, ...]
    weight: float
    label: str
    log_format: str
    parts: tuple[str, ...] = ()

    @property
    def part_names(self) -> dict[str, str]:
        """The names in `Distilled.terms` by part."""
        return {part: f"{self.name}/{part}" for part in self.parts}

    @classmethod
    def of(cls, term: Term) -> TermInfo:
        return cls(term.name, term.sides, term.options.weight, term.label or term.name, term.log_format, term.parts)


class TermRegistry(Registry[type[Term]]):
    """Terms by name. Registering one makes its options known everywhere."""

    def register(self, name: str) -> Callable[[T], T]:
        add: Callable[[Any], Any] = super().register(name)

        def add_named(term: T) -> T:
            add(term)
            term.name = name
            if term.Options is TermOptions or term.Options.term:  # shared: derive a class that can bear this name
                term.Options = dataclasses.make_dataclass("Options", [], bases=(term.Options,), frozen=True)
            term.Options.term = name
            return term

        return add_named


TERMS = TermRegistry("term")
