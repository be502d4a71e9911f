"""Build a distiller: validate the options, then assemble tap, head, terms and prompts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast

import torch
from torch import nn

from kd_plugin.config.kd import KDConfig, variant_values
from kd_plugin.config.schema import from_dict, options_of, to_dict
from kd_plugin.distiller import Distiller
from kd_plugin.distributed import average_gradients
from kd_plugin.errors import KDError, PromptError, TeacherError, arg, nearest
from kd_plugin.interface import AnyDistiller
from kd_plugin.multi_teacher import MultiTeacherDistiller
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.prompts.sources import AUTO, place_of, read_prompts
from kd_plugin.sides.discriminator import Borrowed
from kd_plugin.student.features import LAYOUTS, Layout
from kd_plugin.student.heads import joined_width, make_head
from kd_plugin.student.layers import LayerChoice, names_and_widths
from kd_plugin.student.tap import FeatureTap
from kd_plugin.student.upkeep import Upkeep
from kd_plugin.student.wrapped import device_of
from kd_plugin.teachers import Teacher, load_teachers
from kd_plugin.teachers.base import freeze
from kd_plugin.teachers.embedder import Embedder
from kd_plugin.teachers.image_range import STANDARD
from kd_plugin.teachers.protocol import REQUIRED
from kd_plugin.terms import TERMS, TermOptions

__all__ = ["KDOptions", "attach"]

DEFAULT_TEACHER = "clip"  # of attach(); on the command line distillation is off by default


class KDOptions(TypedDict, total=False):
    """The types of `attach`'s options; defaults and meaning stand in KDConfig and in the options of the terms."""

    agkd: float
    distance: str
    cgkd: float
    cgkd_distance: str
    diversity: float
    diversity_on: str
    match: float
    match_on: str
    match_grid: str
    match_augment: str
    match_pull: float
    match_distance: str
    match_memory: int
    critic: float
    critic_on: str
    critic_grid: str
    critic_lr: float
    critic_augment: str
    p: float
    balance: float
    warmup: float
    until: float
    every: int
    control: str
    layer: LayerChoice
    head: str
    norm: str
    centre: bool
    view: str
    preprocess: str
    precision: str
    template: str


def attach(
    discriminator: nn.Module,
    *,
    teacher: str | Teacher | Sequence[tuple[float, Teacher]] | None = None,
    prompts: Sequence[str] | None = None,
    terms: Mapping[str, float | TermOptions] | None = None,
    config: KDConfig | None = None,
    variant: str | None = None,
    width: int | None = None,
    layout: Layout = "auto",
    image_range: tuple[float, float] = STANDARD,
    carried: bool = False,
    averages: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[KDOptions],
) -> AnyDistiller:
    """Attach a teacher to a discriminator, which itself is not modified.

    Args:
        discriminator: D, also inside DistributedDataParallel or torch.compile (attach before its first call).
        teacher: a spec for `load_teachers`, a Teacher, or several with their weights; by default that of `config`,
            otherwise "clip". Of several, those without a text encoder are not used by terms that need texts.
        prompts: texts to compare images with; by default those in the file `config.prompts`. Without any, terms that
            need texts (cgkd, diversity) are off.
        terms: weights, or options, of the terms by name, built-in or registered by you; all others are off. By default
            the weights of `config`.
        config: all other options; by default KDConfig().
        variant: a name in kd_plugin.VARIANTS, whose values override those of `config`.
        width: F, the number of features of the layer (of several layers, in total), if its attributes do not tell.
        layout: of the layer's output, if it is neither [N, F] nor a map [N, F, h, w]: `channels_first`,
            `channels_last`, or `class_token` (the first of tokens [N, T, F], not their mean). `auto` goes by its width.
        image_range: the values of black and white in the loop's images, such as (0, 1) or (0, 255).
        carried: the host's own backward passes add the terms' gradients, for hosts that call backward for generated
            and real images separately; see AnyDistiller.capture and AnyDistiller.guided.
        averages: the heads' gradients over processes, in the backward pass; False if the loop does that itself.
        seed: of the initial weights of head and terms, of the coin and of the terms' augmentation; must be the same in
            all processes.
        device: of head and teacher; by default D's.
        options: override those of `config` and `variant`: layer= (names, or what list_layers() returned), view=, ...

    Raises:
        KDError: an unknown term or option, a value out of range, or something missing; the message says what to do.
    """
    if layout not in LAYOUTS:
        raise KDError(f"{arg('layout', layout)} is unknown{nearest(layout, LAYOUTS)}")
    widths: dict[str, int] = {}
    if "layer" in options:
        options["layer"], widths = names_and_widths(options["layer"])
    requested = {**variant_values(variant), **options, **_term_values(terms, options)}
    config = from_dict(KDConfig, {**to_dict(config or KDConfig()), **requested}, what="argument of attach()")
    device = device_of(discriminator) if device is None else torch.device(device)
    teachers = _teachers(teacher, config, device)
    if prompts is None:
        prompts, config = _prompts_of(config, requested)
    host = _Host(discriminator, width, widths, layout, image_range, carried, averages, device)
    return host.distiller(teachers, prompts, config, seed)


@dataclass(frozen=True)
class _Host:
    """What `attach` was told about the training loop: see there."""

    discriminator: nn.Module
    width: int | None
    widths: Mapping[str, int]  # by layer
    layout: Layout
    image_range: tuple[float, float]
    carried: bool
    averages: bool
    device: torch.device

    def distiller(
        self,
        teachers: Sequence[tuple[float, Teacher]],
        prompts: Sequence[str] | None,
        config: KDConfig,
        seed: int,
    ) -> AnyDistiller:
        several = len(teachers) > 1
        members = []
        for place, (share, teacher) in enumerate(teachers):
            _check_teacher(teacher)
            own = _without_text_terms(config) if several and teacher.vocabulary == () else config
            bank = _prompt_bank(teacher, prompts, own)
            members.append((share, self._member(teacher, bank, own, (seed, seed + place), share)))
        return MultiTeacherDistiller(members) if several else members[0][1]

    def _member(
        self, teacher: Teacher, prompts: PromptBank | None, config: KDConfig, seeds: tuple[int, int], share: float
    ) -> Distiller:
        """Of one teacher. seeds: of the terms, and of the head."""
        widths = {config.layers[0]: self.width} if self.width and len(config.layers) == 1 else self.widths
        tap = FeatureTap(self.discriminator, config.layers, widths, self.layout)  # reading it empties it
        student = self.width or joined_width(tap.layers.values())
        head = make_head(config.head, student, teacher.embed_dim, seeds[1]).to(self.device)
        borrowed = Borrowed(tap, Embedder(teacher, config.view, config.preprocess, self.image_range), prompts)
        distiller = Distiller(borrowed, head, config, seeds[0], self.carried, share)
        Upkeep(distiller.parameters(), tap.discriminator, tap.reference)
        if self.averages:
            average_gradients(distiller.parameters())
        return distiller


def _term_values(terms: Mapping[str, float | TermOptions] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `terms` stands for, by key.

    Raises:
        KDError: an unknown term, or one that is also among the options.
    """
    if terms is None:
        return {}
    values: dict[str, Any] = dict.fromkeys(TERMS, 0.0)
    for name, given in terms.items():
        TERMS[name]  # raises for an unknown one
        if name in options:
            raise KDError(f"the weight of '{name}' is given twice: in terms= and as {name}=")
        if not isinstance(given, TermOptions):
            values[name] = given
            continue
        for item in options_of(KDConfig):
            if item.path[:2] == ("terms", name):
                values[item.key] = getattr(given, item.path[2])
    return values


def _teachers(
    teacher: str | Teacher | Sequence[tuple[float, Teacher]] | None, config: KDConfig, device: torch.device
) -> list[tuple[float, Teacher]]:
    """With their weights."""
    if teacher is None:
        teacher = config.teacher if config.enabled else DEFAULT_TEACHER
    if isinstance(teacher, str):
        return load_teachers(teacher, device, config.precision, config.control)
    if isinstance(teacher, (list, tuple)):
        return list(teacher)
    return [(1.0, cast(Teacher, teacher))]


def _prompts_of(config: KDConfig, requested: Mapping[str, Any]) -> tuple[list[str] | None, KDConfig]:
    """The prompts in the file of the config, and the config without the terms for which there are none.

    Raises:
        PromptError: a term that needs prompts was requested, and there are none.
    """
    readers = config.terms_that_need("texts")
    if not readers:
        return None, config
    if config.prompts == AUTO:
        raise PromptError(
            f"{arg('prompts', AUTO)}: prompts are selected by images; pass attach() "
            "prompts=kd_plugin.select_prompts(teacher, batches_of_images)"
        )
    if config.prompts is not None:
        return read_prompts(config.prompts), config
    if named := [name for name in readers if requested.get(name)]:
        off = " and ".join(arg(name, 0) for name in named)
        raise PromptError(f"{' and '.join(named)}: each compares images with texts; pass prompts=[...], or set {off}")
    verbs = "is off: it compares" if len(readers) == 1 else "are off: they compare"
    warnings.warn(
        f"{' and '.join(readers)} {verbs} images with texts, and there are none; pass prompts=[...] to use them",
        stacklevel=3,
    )
    return None, _without_text_terms(config)


def _without_text_terms(config: KDConfig) -> KDConfig:
    off = {name: dataclasses.replace(config.terms[name], weight=0.0) for name in config.terms_that_need("texts")}
    return dataclasses.replace(config, terms={**config.terms, **off})


def _check_teacher(teacher: Any) -> None:
    """Reject objects that are not teachers, and freeze a plain nn.Module."""
    missing = [name for name in REQUIRED if not hasattr(teacher, name)]
    if missing:
        raise TeacherError(
            f"teacher: {type(teacher).__name__} has no {', '.join(missing)}; give a spec such as 'clip', or an object "
            "that follows kd_plugin.Teacher"
        )
    if isinstance(teacher, nn.Module):
        freeze(teacher)


def _prompt_bank(teacher: Teacher, prompts: Iterable[str] | None, config: KDConfig) -> PromptBank | None:
    """The texts and their embeddings, if an active term needs them."""
    readers = config.terms_that_need("texts")
    if not readers or prompts is None:
        return None
    bank = PromptBank(cast("Sequence[str]", prompts), teacher)
    if len(bank) < 2:
        raise PromptError(
            f"{arg('prompts')}: {' and '.join(readers)} need at least 2 different prompts, got 1 ('{bank.texts[0]}')"
        )
    try:
        bank.embeddings()  # now: a text that the teacher cannot embed must not stop a run halfway
    except PromptError as error:
        raise PromptError(f"{error}{place_of(error.text, config.prompts)}", error.text) from None
    return bank
