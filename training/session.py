"""Everything a run consists of, built from its configuration, and its state as one dictionary.

Building comes before anything is written: whatever the user got wrong is found here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import RunFailed, UserError
from kd_plugin import AnyDistiller, TermInfo, attach, load_teachers
from kd_plugin.config.schema import to_dict
from kd_plugin.prompts.sources import ChosenPrompts, choose_prompts
from kd_plugin.teachers import Teacher
from kd_plugin.teachers.protocol import HasPrecision
from torch_utils.device import pick_device
from torch_utils.gradients import NanWatch
from torch_utils.memory import keep_freed_memory
from torch_utils.ranks import ALONE, Ranks, local_device
from torch_utils.stats import Stats, Stopwatch
from training.augment import AdaController, AugmentPipe, DiffAugment, augpipe
from training.checkpoint import Snapshot
from training.config import TrainConfig, with_precision
from training.data.dataset import ImageDataset
from training.data.image_sets import open_held_out
from training.lecam import LeCam
from training.monitors.learning import TransferWatch
from training.monitors.metrics import MetricMonitor
from training.monitors.overfitting import OverfitWatch
from training.monitors.variety import VarietyWatch
from training.networks import Discriminator, Generator
from training.phases import Greg, Phase, Players, make_phases
from training.precision import allow_tf32, choose_precision, set_precision
from training.warm_start import ADA_KIMG, take_weights

__all__ = ["HOW_TO_GO_ON", "Session"]

HOW_TO_GO_ON = (
    "the last snapshot and state are kept. Start again from it (--resume=SNAPSHOT) with a lower --lr, a higher --gamma "
    "or --precision=fp32"
)


@dataclass
class Session:
    """The parts of one run. `nimg` counts the real images shown to D, over all that went before."""

    config: TrainConfig
    dataset: ImageDataset
    device: torch.device
    G: Generator
    D: Discriminator
    G_ema: Generator
    kd: AnyDistiller | None
    prompts: ChosenPrompts | None
    pipe: AugmentPipe | None
    ada: AdaController | None
    players: Players
    phases: list[Phase]
    overfit: OverfitWatch | None
    monitor: MetricMonitor | None
    ranks: Ranks = ALONE
    variety: VarietyWatch = field(default_factory=VarietyWatch)
    transfer: TransferWatch = field(default_factory=TransferWatch)
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
        dataset.preload()
        torch.manual_seed(config.seed)
        G, D = _networks(config, dataset)
        G, D = G.to(device).train().requires_grad_(False), D.to(device).train().requires_grad_(False)
        if device.type == "cpu":  # docs/performance.md
            keep_freed_memory()
            G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
        allow_tf32(config.tf32)
        precision = ranks.from_first(lambda: choose_precision(config.precision, D, device))
        for network in (G, D):
            set_precision(network, precision)
        G_ema = copy.deepcopy(G).eval()
        kd, prompts = _distiller(config, dataset, D, device, ranks)
        teachers = config.kd.precision if kd is None else _precision(kd.teachers, config.kd.precision)
        config = with_precision(config, precision, teachers)  # what `auto` came to is a part of the run
        pipe, ada = _ada(config, device)
        augment = pipe if pipe is not None else DiffAugment(config.diffaugment)

        def sample_labels(count: int) -> Tensor:
            """Those of images drawn at random. On the CPU: a table of one-hot rows may be larger than a GPU."""
            drawn = torch.randint(dataset.used, [count])
            return torch.from_numpy(dataset.labels_at(drawn.numpy())).to(device, non_blocking=True)

        players = Players(
            G,
            D,
            augment,
            sample_labels,
            kd,
            ada,
            LeCam(config.lecam, device) if config.lecam > 0 else None,
            Stats(),
            Stopwatch(device),
            NanWatch(device),
            ranks,
            config.style_mixing,
            device,
        )
        phases = make_phases(config, players)
        overfit = _overfit(config, dataset, device, kd) if ranks.speaks else None
        monitor = MetricMonitor.build(vars(config), dataset, device)
        session = Session(
            config, dataset, device, G, D, G_ema, kd, prompts, pipe, ada, players, phases, overfit, monitor, ranks
        )
        session.require_agreement()
        return session

    def require_agreement(self) -> None:
        """
        Raises:
            UserError: the processes differ in an option, the images, or a weight, which is named.
        """
        options = {f"--{name.replace('_', '-')}": repr(value) for name, value in to_dict(self.config).items()}
        heads = {} if self.kd is None else {"kd": self.kd}
        tensors = {
            f"{role}.{name}": tensor
            for role, module in {**self.networks(), **heads}.items()
            for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)
        }
        self.ranks.require_equal({**options, "the images of --data": self.dataset.fingerprint, **tensors})

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
        if self.ada is not None and p and not self.config.p:
            lines.append(
                f"that run's augmentation stood at p = {p:.3f}; --p={p:.3f} starts there, this run starts at 0"
            )
        return lines

    def _set_warm(self) -> None:
        """A network that starts trained is followed closely from the first step, as in the official code."""
        self.warm = True
        if self.ada is not None and self.config.ada_kimg == TrainConfig.ada_kimg:
            self.ada.kimg = ADA_KIMG

    @property
    def ema_rampup(self) -> float | None:
        return None if self.warm else self.config.ema_rampup

    def require_finite_weights(self) -> None:
        """
        Raises:
            RunFailed: a weight is NaN or infinite; names it.
        """
        for role, network in self.networks().items():
            for name, tensor in network.state_dict().items():
                if not tensor.isfinite().all():
                    raise RunFailed(
                        f"{role}.{name} is not finite at {self.nimg / 1000:g} kimg; nothing was written; {HOW_TO_GO_ON}"
                    )

    @property
    def terms_info(self) -> tuple[TermInfo, ...]:
        """The active terms of the distillation."""
        return () if self.kd is None else self.kd.terms_info

    def networks(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema}

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; to be called by every process.

        Random draws need no more than (seed, nimg): see torch_utils.seeding.
        """
        return {
            "nimg": self.nimg,
            "tick": self.tick,
            "warm": self.warm,
            "variety": self.variety.state_dict(),
            "rng": {"seed": self.config.seed, "nimg": self.nimg},
            "dataset": self.dataset.fingerprint,
            "networks": {role: network.state_dict() for role, network in self.networks().items()},
            "optimizers": {phase.name: phase.optimizer.state_dict() for phase in self._optimizer_owners()},
            "pl_mean": [phase.mean_length for phase in self.phases if isinstance(phase, Greg)],
            "overfit": None if self.overfit is None else self.overfit.state_dict(),
            "ada": None if self.ada is None else self.ada.state_dict(self.ranks.sum),
            "lecam": None if self.players.lecam is None else self.players.lecam.state_dict(),
            "kd": None if self.kd is None else self.kd.state_dict(),
            "teacher": self._fingerprint(),
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
            raise UserError(f"--resume: --kd={self.config.kd.teacher} has other weights than the teacher of the run")
        self.nimg, self.tick = state["nimg"], state["tick"]
        self.variety.load_state_dict(state["variety"])
        if state["warm"]:
            self._set_warm()
        for role, network in self.networks().items():
            network.load_state_dict(state["networks"][role])
        for phase in self._optimizer_owners():
            phase.optimizer.load_state_dict(state["optimizers"][phase.name])
        for phase in self.phases:
            if isinstance(phase, Greg):
                phase.mean_length.copy_(state["pl_mean"][0])
        if self.overfit is not None:
            self.overfit.load_state_dict(state["overfit"])
        if self.players.lecam is not None:
            self.players.lecam.load_state_dict(state["lecam"])
        if self.ada is not None and self.pipe is not None:
            self.ada.load_state_dict(state["ada"], first=self.ranks.rank == 0)
            self.pipe.p.fill_(self.ada.p)
        if self.kd is not None:
            self.kd.load_state_dict(state["kd"])

    def _fingerprint(self) -> str | None:
        """Of the teachers."""
        return None if self.kd is None else "+".join(teacher.fingerprint for teacher in self.kd.teachers)

    def _optimizer_owners(self) -> Iterator[Phase]:
        return (phase for phase in self.phases if phase.name in ("Gmain", "Dmain"))


def _networks(config: TrainConfig, dataset: ImageDataset) -> tuple[Generator, Discriminator]:
    shared = {
        "c_dim": dataset.label_dim,
        "img_resolution": dataset.resolution,
        "img_channels": dataset.num_channels,
        "channel_base": config.cbase,
        "channel_max": config.cmax,
        "num_fp16_res": config.num_fp16_res,
        "conv_clamp": config.conv_clamp,
    }
    G = Generator(
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        mapping_layers=config.map_depth,
        use_noise=config.noise,
        **shared,
    )
    D = Discriminator(architecture=config.arch, mbstd_group_size=config.mbstd_group, **shared)
    return G, D


def _distiller(
    config: TrainConfig, dataset: ImageDataset, D: Discriminator, device: torch.device, ranks: Ranks
) -> tuple[AnyDistiller | None, ChosenPrompts | None]:
    if not config.kd.enabled:
        return None, None
    teachers = load_teachers(config.kd.teacher, device, config.kd.precision, config.kd.control)
    precision = _precision([teacher for _, teacher in teachers], config.kd.precision)
    if (first := ranks.from_first(lambda: precision)) != precision:  # `auto` is measured, and not alike everywhere
        teachers = load_teachers(config.kd.teacher, device, first, config.kd.control)
    prompts = None
    if config.kd.needs.texts:
        readers = [teacher for _, teacher in teachers if teacher.vocabulary != ()]
        prompts = choose_prompts(
            (readers or [teachers[0][1]])[0],
            file=config.kd.prompts,
            class_names=dataset.class_names,
            dataset_name=dataset.name,
            images=(batch.to(device) for batch in dataset.images(limit=1000, batch=50)),
            template=config.kd.template,
        )
    kd = attach(
        D,
        teacher=teachers,
        prompts=None if prompts is None else prompts.texts,
        config=config.kd,
        seed=config.seed,
        device=device,
    )
    return kd, prompts


def _precision(teachers: Sequence[Teacher], otherwise: str) -> str:
    """What those compute in that have a choice."""
    return next((teacher.precision for teacher in teachers if isinstance(teacher, HasPrecision)), otherwise)


def _overfit(
    config: TrainConfig, dataset: ImageDataset, device: torch.device, kd: AnyDistiller | None
) -> OverfitWatch | None:
    held_out = open_held_out(vars(config))
    if held_out is None:
        return None
    return OverfitWatch(dataset, held_out, seed=config.seed, batch=config.micro_batch, device=device, kd=kd)


def _ada(config: TrainConfig, device: torch.device) -> tuple[AugmentPipe | None, AdaController | None]:
    if config.aug == "noaug":
        return None, None
    pipe = AugmentPipe(**augpipe(config.augpipe)).to(device)
    pipe.p.fill_(config.p)
    fixed = config.aug == "fixed"
    return pipe, AdaController(target=config.target, kimg=config.ada_kimg, p=config.p, fixed=fixed)
