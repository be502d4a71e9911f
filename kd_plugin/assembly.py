"""How a distiller comes to a discriminator: options in, checked and assembled parts out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from kd_plugin.config.kd import KDConfig, check_weight, variant_values
from kd_plugin.config.schema import from_dict, to_dict
from kd_plugin.distiller import Distiller
from kd_plugin.distributed import average_gradients
from kd_plugin.errors import KDError, LayerError, PromptError, TeacherError, nearest
from kd_plugin.multi_teacher import JointDistiller
from kd_plugin.prompts.bank import AUTO, PromptBank, place_of, read_prompts
from kd_plugin.student.heads import make_head, student_width
from kd_plugin.student.tap import FeatureTap, device_of
from kd_plugin.teachers import Teacher, load_teachers
from kd_plugin.teachers.base import freeze
from kd_plugin.terms import DIVERSITY, LOSSES, MATCH, reads_texts

__all__ = ["AnyDistiller", "attach"]

AnyDistiller = Distiller | JointDistiller

TEACHER = "clip"  # for whoever calls attach() and names none; on the command line distillation is off by default
TEACHER_HAS = ("name", "embed_dim", "fingerprint", "vocabulary", "embed_images", "embed_texts")


def attach(
    discriminator: nn.Module,
    *,
    teacher: str | Teacher | Sequence[tuple[float, Teacher]] | None = None,
    prompts: Sequence[str] | None = None,
    losses: Mapping[str, float] | None = None,
    config: KDConfig | None = None,
    variant: str | None = None,
    width: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    **overrides: Any,
) -> AnyDistiller:
    """Makes a Distiller for `discriminator`, which itself is left untouched; of several teachers, a JointDistiller.

    Args:
        discriminator: D, also inside DistributedDataParallel (the heads' gradients are averaged as well) or
            torch.compile (attach before its first call).
        teacher: a spec for `load_teachers`, a Teacher, or several with their weights; by default that of `config`, else
            "clip". Of several, those without a text side learn from AGKD alone.
        prompts: texts to compare images with; by default those in the file `config.prompts`. Needed by the terms
            cgkd and diversity.
        losses: weight by name; a name that is not in it has weight 0. By default the weights of `config`.
        config: all other choices; by default KDConfig().
        variant: a name in kd_plugin.VARIANTS, whose values replace those of `config`.
        width: F, the number of features of the layer (of several, of all together), where it does not tell.
        seed: of the head's start and of the coin; the same on all ranks.
        device: of head and teacher; by default D's.
        overrides: fields of KDConfig by name (layer=, view=, head=, p=, ...), which replace
            those of `config` and `variant`.

    Raises:
        KDError: an unknown loss or option, a value out of range, or something missing; the message says what to do.
    """
    chosen = {**to_dict(config or KDConfig()), **variant_values(variant), **overrides}
    config = from_dict(KDConfig, chosen, what="option of attach()")
    weights = config.weights if losses is None else _checked_weights(losses, overrides)
    if device is None:
        device = device_of(discriminator)
    if teacher is None:
        teacher = config.teacher if config.enabled else TEACHER
    if isinstance(teacher, str):
        found = load_teachers(teacher, device, config.precision, config.control)
    elif isinstance(teacher, (list, tuple)):
        found = list(teacher)
    else:
        found = [(1.0, cast(Teacher, teacher))]

    def distiller_of(one: Teacher, place: int) -> Distiller:
        """Each has a tap of its own: a tap is drained by its owner."""
        _check_teacher(one)
        tap = FeatureTap(discriminator, config.layers)
        own = dict(weights)
        if len(found) > 1 and one.vocabulary == ():
            own = {name: 0.0 if reads_texts(name) else weight for name, weight in weights.items()}
        bank = _prompt_bank(one, prompts, config, own)
        head = make_head(config.head, width or _student_width(tap), one.embed_dim, seed + place).to(device)
        if tap.distributed:
            average_gradients(head.parameters())
        effective: dict[str, Any] = {name: own.get(name, 0.0) for name in config.weights}
        return Distiller(tap, one, head, bank, dataclasses.replace(config, **effective), own, seed)

    made = [(share, distiller_of(one, place)) for place, (share, one) in enumerate(found)]
    return made[0][1] if len(made) == 1 else JointDistiller(made)


def _student_width(tap: FeatureTap) -> int:
    """F, over all layers."""
    total = 0
    for name, layer in tap.layers.items():
        features = student_width(layer)
        if features is None:
            raise LayerError(
                f"--kd-layer: '{name}' ({type(layer).__name__}) does not tell how many features it gives; "
                "pass width= to attach() (kd_plugin.list_layers(D, images) tells)"
            )
        total += features
    return total


def _checked_weights(losses: Mapping[str, float], overrides: Mapping[str, Any]) -> dict[str, float]:
    known = [*LOSSES, DIVERSITY, MATCH]
    for name, weight in losses.items():
        if name not in known:
            raise KDError(f"unknown loss '{name}'{nearest(name, known)}")
        if name in overrides:
            raise KDError(f"the weight of '{name}' is given twice: in losses= and as {name}=")
        check_weight(name, weight)
    return dict(losses)


def _check_teacher(teacher: Any) -> None:
    """Refuses what is no teacher, and freezes one that is a bare nn.Module."""
    missing = [name for name in TEACHER_HAS if not hasattr(teacher, name)]
    if missing:
        raise TeacherError(
            f"teacher: {type(teacher).__name__} has no {', '.join(missing)}; give a spec such as 'clip', or an object "
            "that follows kd_plugin.Teacher"
        )
    if isinstance(teacher, nn.Module):
        freeze(teacher)


def _prompt_bank(
    teacher: Teacher, prompts: Sequence[str] | None, config: KDConfig, weights: Mapping[str, float]
) -> PromptBank | None:
    """The texts, where a term with a weight needs them."""
    readers = [name for name, weight in weights.items() if weight > 0 and reads_texts(name)]
    if not readers:
        return None
    if prompts is None:
        if config.prompts is None:
            raise PromptError(
                f"{' and '.join(readers)} compare images with texts: pass prompts=[...] (or --kd-prompts=FILE), or "
                f"set {' and '.join(f'--kd-{name}=0' for name in readers)}"
            )
        if config.prompts == AUTO:
            raise PromptError(
                "--kd-prompts=auto: prompts are chosen by the images; pass attach() "
                "prompts=kd_plugin.telling_prompts(teacher, batches_of_images)"
            )
        prompts = read_prompts(config.prompts)
    bank = PromptBank(prompts, teacher)
    if len(bank) < 2:
        raise PromptError(
            f"--kd-prompts: {' and '.join(readers)} need at least 2 different prompts, got 1 ('{bank.texts[0]}')"
        )
    try:
        bank.embeddings()  # now: a text that the teacher cannot take must not stop a run that has begun
    except PromptError as error:
        raise PromptError(f"{error}{place_of(error.text, config.prompts)}", error.text) from None
    return bank
