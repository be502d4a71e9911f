"""Building the parts of a run from its options.

Everything is built before anything is written, and cheap checks come before expensive work: a teacher that cannot be
loaded is reported before networks are built.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kd_plugin import AnyDistiller, attach, load_teachers
from kd_plugin.prompts.sources import PROMPT_IMAGES, ChosenPrompts, choose_prompts, reader_of
from kd_plugin.teachers import Teacher
from kd_plugin.teachers.protocol import HasPrecision
from torch_utils.gradients import NanWatch
from torch_utils.memory import keep_freed_memory
from torch_utils.ranks import Ranks
from torch_utils.stats import Stats, Stopwatch
from training.augment import AdaController, AugmentPipe, DiffAugment, augpipe
from training.config import ADA_KIMG, TrainConfig
from training.data.dataset import ImageDataset
from training.data.image_sets import open_held_out
from training.lecam import LeCam
from training.monitors.overfitting import OverfittingMonitor
from training.networks import MODELS, DiscriminatorNetwork, GeneratorNetwork
from training.phases import StepContext
from training.precision import allow_tf32, choose_precision, set_precision

__all__ = [
    "Augmentation",
    "Distillation",
    "Networks",
    "Teachers",
    "build_augmentation",
    "build_context",
    "build_distillation",
    "build_networks",
    "build_overfitting_monitor",
    "build_teachers",
]


@dataclass(frozen=True)
class Networks:
    """G and D, without gradients until a phase asks for them; the moving average of G; and what they compute in."""

    G: GeneratorNetwork
    D: DiscriminatorNetwork
    G_ema: GeneratorNetwork
    precision: str


@dataclass(frozen=True)
class Teachers:
    """With their weights, and the number type of those that have a choice. Empty for the baseline."""

    weighted: list[tuple[float, Teacher]]
    precision: str


@dataclass(frozen=True)
class Distillation:
    """Both are None for the baseline; prompts also if no active term needs texts."""

    kd: AnyDistiller | None
    prompts: ChosenPrompts | None


@dataclass(frozen=True)
class Augmentation:
    """ADA's pipeline and controller, None with DiffAugment or without any; `apply` is what D's images go through."""

    pipe: AugmentPipe | None
    ada: AdaController | None
    apply: AugmentPipe | DiffAugment

    def end_step(self, nimg: int, ranks: Ranks) -> None:
        """Lets ADA adjust its p after a training step of `nimg` images."""
        if self.ada is not None and self.pipe is not None and self.ada.step(nimg, ranks.sum):
            self.pipe.p.fill_(self.ada.p)

    def restore(self, ranks: Ranks, state: dict[str, Any]) -> None:
        """Continue from a state of `ada`."""
        assert self.ada is not None
        assert self.pipe is not None
        self.ada.load_state_dict(state, first=ranks.is_main)
        self.pipe.p.fill_(self.ada.p)


def build_teachers(config: TrainConfig, device: torch.device, ranks: Ranks) -> Teachers:
    """
    Raises:
        TeacherError: a teacher cannot be found, fetched or read.
    """
    kd = config.kd
    if not kd.enabled:
        return Teachers([], kd.precision)
    teachers = load_teachers(kd.teacher, device, kd.precision, kd.control)
    precision = _precision_of([teacher for _, teacher in teachers], kd.precision)
    if (first := ranks.from_first(lambda: precision)) != precision:  # `auto` is measured, and may differ
        teachers = load_teachers(kd.teacher, device, first, kd.control)
    return Teachers(teachers, first)


def build_networks(config: TrainConfig, dataset: ImageDataset, device: torch.device, ranks: Ranks) -> Networks:
    """Draws the initial weights from torch's global generator."""
    model = MODELS[config.model]
    images: dict[str, Any] = {
        "c_dim": dataset.label_dim,
        "img_resolution": dataset.resolution,
        "img_channels": dataset.num_channels,
    }
    G = model.generator(**images, **model.generator.arguments(config))
    D = model.discriminator(**images, **model.discriminator.arguments(config))
    G, D = G.to(device).train().requires_grad_(False), D.to(device).train().requires_grad_(False)
    if device.type == "cpu":  # docs/performance.md
        keep_freed_memory()
        for network in (G, D):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    allow_tf32(config.tf32)
    precision = ranks.from_first(lambda: choose_precision(config.precision, D, device))
    for network in (G, D):
        set_precision(network, precision)
    return Networks(G, D, copy.deepcopy(G).eval(), precision)


def build_distillation(
    config: TrainConfig, teachers: Teachers, dataset: ImageDataset, D: DiscriminatorNetwork, device: torch.device
) -> Distillation:
    """
    Raises:
        KDError: an option of the distillation that cannot be used with this D or these images.
    """
    if not teachers.weighted:
        return Distillation(None, None)
    prompts = None
    if config.kd.terms_that_need("texts"):
        prompts = choose_prompts(
            reader_of([teacher for _, teacher in teachers.weighted]),
            file=config.kd.prompts,
            class_names=dataset.class_names,
            dataset_name=dataset.name,
            images=(batch.to(device) for batch in dataset.images(limit=PROMPT_IMAGES, batch=50)),
            template=config.kd.template,
        )
    kd = attach(
        D,
        teacher=teachers.weighted,
        prompts=None if prompts is None else prompts.texts,
        config=config.kd,
        averages=False,  # phases.py averages them with D's
        seed=config.seed,
        device=device,
    )
    return Distillation(kd, prompts)


def build_augmentation(config: TrainConfig, device: torch.device) -> Augmentation:
    if config.aug == "noaug":
        return Augmentation(None, None, DiffAugment(config.diffaugment, "--diffaugment"))
    pipe = AugmentPipe(**augpipe(config.augpipe)).to(device)
    pipe.p.fill_(config.p)
    kimg = ADA_KIMG if config.ada_kimg is None else config.ada_kimg
    ada = AdaController(target=config.target, kimg=kimg, p=config.p, fixed=config.aug == "fixed")
    return Augmentation(pipe, ada, pipe)


def build_context(
    config: TrainConfig,
    dataset: ImageDataset,
    networks: Networks,
    kd: AnyDistiller | None,
    augmentation: Augmentation,
    device: torch.device,
    ranks: Ranks,
) -> StepContext:
    """What the phases share."""

    def sample_labels(count: int) -> Tensor:
        """Those of images drawn at random. On the CPU: a table of one-hot rows may be larger than a GPU."""
        drawn = torch.randint(dataset.used, [count])
        return torch.from_numpy(dataset.labels_at(drawn.numpy())).to(device, non_blocking=True)

    return StepContext(
        G=networks.G,
        D=networks.D,
        augment=augmentation.apply,
        sample_labels=sample_labels,
        kd=kd,
        ada=augmentation.ada,
        lecam=LeCam(config.lecam, device) if config.lecam > 0 else None,
        stats=Stats(),
        kd_watch=Stopwatch(device),
        nans=NanWatch(device),
        ranks=ranks,
        style_mixing=config.style_mixing,
        loss=config.loss,
        device=device,
    )


def build_overfitting_monitor(
    config: TrainConfig, dataset: ImageDataset, device: torch.device, kd: AnyDistiller | None
) -> OverfittingMonitor | None:
    """None without held-out images."""
    held_out = open_held_out(config.images)
    if held_out is None:
        return None
    return OverfittingMonitor(dataset, held_out, seed=config.seed, batch=config.micro_batch, device=device, kd=kd)


def _precision_of(teachers: Sequence[Teacher], otherwise: str) -> str:
    """The number type of those that have a choice."""
    return next((teacher.precision for teacher in teachers if isinstance(teacher, HasPrecision)), otherwise)
