"""The four parts of a training step, one object each.

    Gmain  the generator's adversarial loss (and distillation's terms of the generator, where they are on)
    Greg   path length regularisation, lazily
    Dmain  the discriminator's adversarial loss and the distillation
    Dreg   R1, lazily

A phase owns its random draws and its loss; `Phase.step` is common: backward, sanitize gradients, Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from kd_plugin import AnyDistiller, Distilled, gradient_ratio
from torch_utils.gradients import NanWatch, average_and_sanitize
from torch_utils.ranks import Ranks
from torch_utils.stats import Stats, Stopwatch
from training.augment import AdaController
from training.config import TrainConfig
from training.lecam import LeCam
from training.losses import discriminator_loss, generator_loss, path_lengths, path_penalty, r1_penalty
from training.networks import DiscriminatorNetwork, GeneratorNetwork

__all__ = ["Batch", "Dmain", "Dreg", "Gmain", "Greg", "Phase", "StepContext", "lazy_adam", "make_phases"]


@dataclass(frozen=True)
class Batch:
    """Real images [N, C, H, W] in [-1, 1], their labels [N, c_dim] (c_dim may be 0) and indices [N], on the CPU."""

    real: Tensor
    labels: Tensor
    indices: Tensor

    def split(self, size: int) -> list[Batch]:
        parts = (tensor.split(size) for tensor in (self.real, self.labels, self.indices))
        return [Batch(*part) for part in zip(*parts, strict=True)]


class Augment(Protocol):
    def __call__(self, images: Tensor) -> Tensor: ...


class LabelSource(Protocol):
    def __call__(self, count: int) -> Tensor:
        """Labels [count, c_dim] drawn from the training set."""
        ...


@dataclass(frozen=True)
class StepContext:
    """What the phases share."""

    G: GeneratorNetwork
    D: DiscriminatorNetwork
    augment: Augment
    sample_labels: LabelSource
    kd: AnyDistiller | None
    ada: AdaController | None
    lecam: LeCam | None
    stats: Stats
    kd_watch: Stopwatch
    nans: NanWatch
    ranks: Ranks
    style_mixing: float
    loss: str  # a name in training.losses.LOSSES
    device: torch.device

    def latents(self, count: int) -> tuple[Tensor, Tensor]:
        """z [count, z_dim] and labels [count, c_dim] to generate from."""
        z = torch.randn([count, self.G.z_dim], device=self.device)
        return z, self.sample_labels(count)

    def generate(self, z: Tensor, labels: Tensor, update_averages: bool = False) -> tuple[Tensor, Tensor | None]:
        """Images [N, C, H, W] and what they were made from: see `GeneratorNetwork.training_images`."""
        return self.G.training_images(z, labels, style_mixing=self.style_mixing, update_averages=update_averages)


class Phase:
    """One step of an optimiser, every `interval` training steps, on the parameters that it was given.

    `gain` scales the loss: a lazy regulariser counts for the steps it skipped.
    """

    name: str

    def __init__(
        self, context: StepContext, optimizer: torch.optim.Optimizer, interval: int = 1, gain: float = 1.0
    ) -> None:
        self.context = context
        self.optimizer = optimizer
        self.interval = interval
        self.gain = gain
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def report(self, distilled: Distilled, adversarial: Tensor, pull: str) -> None:
        """Report the terms and, once per tick (two backward passes), the gradient ratio under the name `pull`."""
        stats = self.context.stats
        if distilled.outputs and pull not in stats:
            stats.report(pull, gradient_ratio(distilled, adversarial))
        for name, value in distilled.terms.items():
            stats.report(f"Loss/KD/{name}", value)

    def step(self, batches: Sequence[Batch]) -> None:
        """Sums the gradients of the mean loss over `batches` (equal sizes), averages them over the processes, and
        updates the parameters."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            (self.loss(batch) * (self.gain / len(batches))).backward()
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self.context.nans.note(average_and_sanitize(self.parameters, self.context.ranks))
        self.optimizer.step()


class Gmain(Phase):
    name = "Gmain"

    def loss(self, batch: Batch) -> Tensor:
        context = self.context
        z, labels = context.latents(batch.real.shape[0])
        fake, _ = context.generate(z, labels)
        seen = context.augment(fake)
        logits = context.D(seen, labels)
        loss = generator_loss(logits, context.loss)
        context.stats.report("Loss/scores/fake", logits)
        context.stats.report("Loss/signs/fake", logits.sign())
        context.stats.report("Loss/G/loss", loss)
        return loss if context.kd is None else loss + self._distil(context.kd, fake, seen, batch, loss)

    def _distil(self, kd: AnyDistiller, fake: Tensor, seen: Tensor, batch: Batch, adversarial: Tensor) -> Tensor:
        context = self.context
        with context.kd_watch.running():
            if kd.view == "seen":
                real = context.augment(batch.real) if kd.generator_needs.real_images else None
                distilled = kd.for_generator(seen, real, adversarial)
            else:
                distilled = kd.for_generator(fake, batch.real, adversarial, batch.indices)
            self.report(distilled, adversarial, "Loss/KD/grad_ratio_G")
        return distilled.total


class Greg(Phase):
    """Path length regularisation (Karras et al. 2020): the length is pulled towards its running mean."""

    name = "Greg"
    decay = 0.01  # of the running mean, per application
    shrink = 2  # the penalty is estimated on this fraction of the batch, as published

    def __init__(
        self, context: StepContext, optimizer: torch.optim.Optimizer, interval: int, gain: float, weight: float
    ) -> None:
        super().__init__(context, optimizer, interval, gain)
        self.weight = weight
        self.mean_length = torch.zeros([], device=context.device)

    def loss(self, batch: Batch) -> Tensor:
        context = self.context
        z, labels = context.latents(max(batch.real.shape[0] // self.shrink, 1))
        fake, ws = context.generate(z, labels)
        assert ws is not None  # TrainConfig refuses --pl-weight without it
        lengths = path_lengths(fake, ws)
        mean = lengths.mean().detach()
        context.ranks.average([mean])
        self.mean_length.lerp_(mean, self.decay)
        penalty = path_penalty(lengths, self.mean_length)
        context.stats.report("Loss/pl_penalty", penalty)
        return penalty * self.weight

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean_length": self.mean_length}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean_length.copy_(state["mean_length"])


class Dmain(Phase):
    """Both augmented batches are seen before the loss is formed: the crossed pairs of the distillation need both."""

    name = "Dmain"

    def step(self, batches: Sequence[Batch]) -> None:
        context = self.context
        if context.kd is not None:
            context.kd.begin_step()
        super().step(batches)
        context.ranks.average(context.G.running_averages())  # this process's latents moved them
        if context.lecam is not None:
            context.lecam.step(context.ranks)

    def loss(self, batch: Batch) -> Tensor:
        context = self.context
        z, labels = context.latents(batch.real.shape[0])
        with torch.no_grad():
            fake, _ = context.generate(z, labels, update_averages=True)
        if context.kd is None:
            fake_logits = context.D(context.augment(fake), labels)
            real_logits = context.D(context.augment(batch.real), batch.labels)
        else:
            with context.kd.capture("fake", clean=fake):
                fake_logits = context.D(context.augment(fake), labels)
            with context.kd.capture("real", clean=batch.real, keys=batch.indices):
                real_logits = context.D(context.augment(batch.real), batch.labels)
        loss = discriminator_loss(real_logits, fake_logits, context.loss)
        context.stats.report("Loss/scores/fake", fake_logits)
        context.stats.report("Loss/signs/fake", fake_logits.sign())
        context.stats.report("Loss/scores/real", real_logits)
        context.stats.report("Loss/signs/real", real_logits.sign())
        context.stats.report("Loss/D/loss", loss)
        if context.ada is not None:
            context.ada.observe(real_logits)
        if context.lecam is not None:
            penalty = context.lecam.penalty(real_logits, fake_logits)
            context.stats.report("Loss/lecam", penalty)
            loss = loss + penalty * context.lecam.weight
        return loss if context.kd is None else loss + self._distil(context.kd, loss)

    def _distil(self, kd: AnyDistiller, adversarial: Tensor) -> Tensor:
        with self.context.kd_watch.running():
            distilled = kd(adversarial)
            self.report(distilled, adversarial, "Loss/KD/grad_ratio")
        self.context.stats.report("Loss/KD/total", distilled.total)
        return distilled.total


class Dreg(Phase):
    """R1 on the real images; its gradient passes the augmentation."""

    name = "Dreg"

    def __init__(self, context: StepContext, optimizer: torch.optim.Optimizer, interval: int, gamma: float) -> None:
        super().__init__(context, optimizer, interval, gain=interval)
        self.gamma = gamma

    def loss(self, batch: Batch) -> Tensor:
        context = self.context
        real = batch.real.detach().requires_grad_(True)
        logits = context.D(context.augment(real), batch.labels)
        penalty = r1_penalty(logits, real)
        context.stats.report("Loss/r1_penalty", penalty)
        context.stats.report("Loss/D/reg", penalty * (self.gamma / 2))
        return penalty * (self.gamma / 2)


def lazy_adam(parameters: Sequence[nn.Parameter], lr: float, beta2: float, interval: int | None) -> torch.optim.Adam:
    """Adam with betas (0, beta2), rescaled where a lazy regulariser adds a step every `interval` steps (None: none).

    Learning rate times c and betas to the power c, with c = interval / (interval + 1), keep the time constants of
    one step per iteration (Karras et al. 2020, appendix B).
    """
    c = 1.0 if interval is None else interval / (interval + 1)
    return torch.optim.Adam(parameters, lr=lr * c, betas=(0.0, beta2**c), eps=1e-8, fused=True)


def make_phases(config: TrainConfig, context: StepContext) -> list[Phase]:
    """The phases of a run, in their order within a step. The regularisers share their network's optimiser."""
    regularise_g = config.pl_weight > 0
    regularise_d = config.gamma > 0
    g_adam = lazy_adam(list(context.G.parameters()), config.lr, config.beta2, config.pl_every if regularise_g else None)
    heads = [] if context.kd is None else list(context.kd.parameters())
    frozen = set(context.D.frozen_parameters(config.freezed))
    learned = [parameter for parameter in context.D.parameters() if parameter not in frozen]
    d_adam = lazy_adam([*learned, *heads], config.lr, config.beta2, config.r1_every if regularise_d else None)
    phases: list[Phase] = [Gmain(context, g_adam, config.d_steps)]
    if regularise_g:
        phases.append(Greg(context, g_adam, config.pl_every * config.d_steps, config.pl_every, config.pl_weight))
    phases.append(Dmain(context, d_adam))
    if regularise_d:
        phases.append(Dreg(context, d_adam, config.r1_every, config.gamma))
    return phases
