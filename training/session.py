"""A run: its parts, and their state.

Every part that the next step depends on is listed once, in `Session.parts`; random draws need no state (see
torch_utils.seeding).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnnlib.errors import RunFailed, UserError
from kd_plugin import AnyDistiller, TermInfo
from kd_plugin.config.click_flags import plain_flag
from kd_plugin.config.schema import to_dict
from kd_plugin.prompts.sources import ChosenPrompts
from torch_utils.device import pick_device
from torch_utils.ranks import ALONE, Ranks, local_device
from training.build import (
    Augmentation,
    Distillation,
    Networks,
    build_augmentation,
    build_context,
    build_distillation,
    build_networks,
    build_overfitting_monitor,
    build_teachers,
)
from training.checkpoint import Snapshot
from training.config import ADA_KIMG_WARM, TrainConfig, with_precision
from training.data.dataset import ImageDataset
from training.monitors.learning import LearningMonitor
from training.monitors.metrics import MetricMonitor
from training.monitors.overfitting import OverfittingMonitor
from training.monitors.strength import StrengthMonitor
from training.monitors.variety import VarietyMonitor, spread_of
from training.networks import DiscriminatorNetwork, GeneratorNetwork, Network
from training.phases import Greg, Phase, StepContext, make_phases
from training.warm_start import take_weights

__all__ = ["HOW_TO_CONTINUE", "Monitors", "Part", "Session"]

SHOWN = 64  # real images tell how much they differ
HOW_TO_CONTINUE = (
    "the last snapshot and state are kept. Start again from it (--resume=SNAPSHOT) with a lower --lr, a higher --gamma "
    "or --precision=fp32"
)


@dataclass(frozen=True)
class Part:
    """A part with state: how it is saved and restored."""

    save: Callable[[], Any]
    load: Callable[[Any], Any]

    @classmethod
    def of(cls, owner: Any) -> Part:
        """Of an object with state_dict and load_state_dict."""
        return cls(owner.state_dict, owner.load_state_dict)


@dataclass(frozen=True)
class Monitors:
    """What measures a run and warns; `overfitting` and `metrics` are None if they are off."""

    overfitting: OverfittingMonitor | None
    metrics: MetricMonitor | None
    variety: VarietyMonitor
    strength: StrengthMonitor
    learning: LearningMonitor = field(default_factory=LearningMonitor)


@dataclass(kw_only=True)
class Session:
    """One run. `nimg` counts the real images shown to D, since the run was first started."""

    config: TrainConfig
    dataset: ImageDataset
    device: torch.device
    ranks: Ranks
    nets: Networks
    distillation: Distillation
    augmentation: Augmentation
    context: StepContext
    phases: list[Phase]
    monitors: Monitors
    nimg: int = 0
    tick: int = 0
    warm: bool = False  # started from a snapshot's weights

    @staticmethod
    def build(config: TrainConfig, dataset: ImageDataset, ranks: Ranks = ALONE) -> Session:
        """The same in every process, which is checked.

        Raises:
            UserError, KDError: anything in the configuration that cannot be used.
        """
        device = pick_device(local_device(config.device))
        teachers = build_teachers(config, device, ranks)
        dataset.preload()
        torch.manual_seed(config.seed)
        nets = build_networks(config, dataset, device, ranks)
        distillation = build_distillation(config, teachers, dataset, nets.D, device)
        config = with_precision(config, nets.precision, teachers.precision)  # what `auto` became is a part of the run
        augmentation = build_augmentation(config, device)
        context = build_context(config, dataset, nets, distillation.kd, augmentation, device, ranks)
        overfitting = build_overfitting_monitor(config, dataset, device, distillation.kd) if ranks.is_main else None
        session = Session(
            config=config,
            dataset=dataset,
            device=device,
            ranks=ranks,
            nets=nets,
            distillation=distillation,
            augmentation=augmentation,
            context=context,
            phases=make_phases(config, context),
            monitors=Monitors(
                overfitting,
                MetricMonitor.build(config, dataset, device),
                VarietyMonitor(spread_of(dataset.images(limit=SHOWN, batch=8)) if ranks.is_main else 0.0),
                StrengthMonitor(adaptive=config.aug == "ada"),
            ),
        )
        session.require_agreement()
        return session

    @property
    def total_nimg(self) -> int:
        """Where the run ends."""
        return round(self.config.kimg * 1000)

    @property
    def finished(self) -> bool:
        return self.nimg >= self.total_nimg

    @property
    def G(self) -> GeneratorNetwork:
        return self.nets.G

    @property
    def D(self) -> DiscriminatorNetwork:
        return self.nets.D

    @property
    def G_ema(self) -> GeneratorNetwork:
        return self.nets.G_ema

    @property
    def kd(self) -> AnyDistiller | None:
        return self.distillation.kd

    @property
    def prompts(self) -> ChosenPrompts | None:
        return self.distillation.prompts

    @property
    def terms_info(self) -> tuple[TermInfo, ...]:
        """The active terms of the distillation."""
        return () if self.kd is None else self.kd.terms_info

    @property
    def ema_rampup(self) -> float | None:
        return None if self.warm else self.config.ema_rampup

    def networks(self) -> dict[str, Network]:
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema}

    def require_agreement(self) -> None:
        """
        Raises:
            UserError: the processes differ in an option, the images, or a weight, which is named.
        """
        options = {plain_flag(name): repr(value) for name, value in to_dict(self.config).items()}
        heads = {} if self.kd is None else {"kd": self.kd}
        tensors = {
            f"{role}.{name}": tensor
            for role, module in {**self.networks(), **heads}.items()
            for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)
        }
        self.ranks.require_equal({**options, "the images of --data": self.dataset.fingerprint, **tensors})

    def require_finite_weights(self) -> None:
        """
        Raises:
            RunFailed: a weight is NaN or infinite; names it.
        """
        for role, network in self.networks().items():
            for name, tensor in network.state_dict().items():
                if not tensor.isfinite().all():
                    raise RunFailed(
                        f"{role}.{name} is not finite at {self.nimg / 1000:g} kimg; nothing was written; "
                        f"{HOW_TO_CONTINUE}"
                    )

    def start_from(self, snapshot: Snapshot) -> list[str]:
        """Takes over the weights whose names and shapes agree: a warm start, in another resolution too.

        Returns:
            What was taken over and what was not, a line each.

        Raises:
            UserError: nothing agrees.
        """
        lines = take_weights(self.networks(), snapshot)
        self._set_warm()
        p = snapshot.meta.get("augment_p")
        if self.augmentation.ada is not None and p and not self.config.p:
            lines.append(
                f"that run's augmentation stood at p = {p:.3f}; --p={p:.3f} starts there, this run starts at 0"
            )
        return lines

    def _set_warm(self) -> None:
        """A network that starts trained is followed closely from the first step, as in the official code."""
        self.warm = True
        ada = self.augmentation.ada
        if ada is not None and self.config.ada_kimg is None:
            ada.kimg = ADA_KIMG_WARM

    def parts(self) -> dict[str, Part]:
        """Everything that the next step depends on, by the name under which its state is saved."""
        parts = {"progress": Part(self._progress, self._set_progress), "variety": Part.of(self.monitors.variety)}
        parts |= {name: Part.of(network) for name, network in self.networks().items()}
        for phase in self.phases:
            if phase.name in ("Gmain", "Dmain"):  # the regularisers share their network's optimiser
                parts[f"optimizer.{phase.name}"] = Part.of(phase.optimizer)
            if isinstance(phase, Greg):
                parts["path_length"] = Part.of(phase)
        optional = {"overfitting": self.monitors.overfitting, "lecam": self.context.lecam, "kd": self.kd}
        parts |= {name: Part.of(owner) for name, owner in optional.items() if owner is not None}
        if self.augmentation.ada is not None:
            parts["ada"] = Part(
                partial(self.augmentation.ada.state_dict, self.ranks.sum),
                partial(self.augmentation.restore, self.ranks),
            )
        return parts

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; to be called by every process."""
        return {
            "dataset": self.dataset.fingerprint,
            "teacher": self._fingerprint(),
            "parts": {name: part.save() for name, part in self.parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            UserError: the state was made with other images or another teacher.
        """
        if state["dataset"] != self.dataset.fingerprint:
            raise UserError(
                f"--resume: the images of --data={self.config.data} are not those the run was started with; "
                "start a new run, or give the same images"
            )
        if self.kd is not None and state["teacher"] != self._fingerprint():
            raise UserError(
                f"--resume: --kd={self.config.kd.teacher} has different weights from the teacher of the run"
            )
        for name, part in self.parts().items():
            part.load(state["parts"][name])

    def _progress(self) -> dict[str, Any]:
        return {"nimg": self.nimg, "tick": self.tick, "warm": self.warm}

    def _set_progress(self, state: dict[str, Any]) -> None:
        self.nimg, self.tick = state["nimg"], state["tick"]
        if state["warm"]:
            self._set_warm()

    def _fingerprint(self) -> str | None:
        """Of the teachers."""
        return None if self.kd is None else "+".join(teacher.fingerprint for teacher in self.kd.teachers)
