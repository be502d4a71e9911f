"""Trials: a copy of the discriminator is trained on distillation alone, and judged on held-out images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.diagnostics import errors_of, fraction_explained
from kd_plugin.distances import DISTANCES
from kd_plugin.normalization import Normalization
from kd_plugin.probe.report import Trial
from kd_plugin.student.heads import joined_width, make_head
from kd_plugin.student.rows import Rows
from kd_plugin.student.tap import FeatureTap
from kd_plugin.student.wrapped import inside
from kd_plugin.teachers.precision import least_seconds
from kd_plugin.types import Pairs

__all__ = ["Inputs", "ProbeStudent", "TrialOptions", "Trials"]

LEARNING_RATE = 1e-3  # half of StyleGAN2's: not all nets scale their weights

Inputs = Callable[[Tensor], tuple[Any, ...]]  # images [N, C, H, W] -> what D is called with


@dataclass(frozen=True)
class TrialOptions:
    """How D is called and trained in a trial.

    Attributes:
        inputs: images [N, C, H, W] -> what D is called with: (images,), or with labels.
        batch: images a step, and a call of D.
        seed: of the heads and of the order of the images.
        lr: Adam's learning rate.
    """

    inputs: Inputs = lambda images: (images,)
    batch: int = 16
    seed: int = 0
    lr: float = LEARNING_RATE


class ProbeStudent:
    """A copy of D with a head, trained by AGKD on standardised embeddings and nothing else.

    Args:
        discriminator: D; it is copied, not changed.
        layer: one name, or several separated by commas.
        head: as `make_head` takes it.
        embeddings: [N, E], the teacher's embeddings of the training images; they set the scale.
        options: how D is called and trained.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        layer: str,
        head: str,
        embeddings: Tensor,
        options: TrialOptions,
    ) -> None:
        self._d = copy.deepcopy(inside(discriminator)).train().requires_grad_(True)
        self._tap = FeatureTap(self._d, layer.split(","))
        self._head = make_head(head, joined_width(self._tap.layers.values()), embeddings.shape[1], options.seed).to(
            embeddings.device
        )
        self._space = Normalization("standardise", False, embeddings.shape[1], embeddings.device)
        self._space.observe(embeddings)
        self._distance, self._options = DISTANCES["l1"], options
        self._parameters = [*self._d.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=options.lr, betas=(0.0, 0.99), eps=1e-8)

    def train_step(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """One step on images [N, C, H, W] and their embeddings [N, E]; returns the loss."""
        pairs = self._pairs(images, embeddings)
        loss = self._distance.between(pairs.student, pairs.teacher)
        # Not a backward pass, which would add to whatever else `inputs` may have used.
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def fraction_explained(self, images: Tensor, embeddings: Tensor) -> float:
        """1 - distance / distance of the best constant, fitted to these very images."""
        self._d.eval()
        pairs = self._pairs(images, embeddings)
        self._d.train()
        return fraction_explained(*errors_of(pairs, self._distance))

    def _pairs(self, images: Tensor, embeddings: Tensor) -> Pairs:
        with self._tap.capture(Rows.of("real")):
            for part in torch.split(images, self._options.batch):
                self._d(*self._options.inputs(part))
        return self._space.compared(Pairs(self._head(self._tap.release(("real",))["real"].features), embeddings))


@dataclass(frozen=True)
class Trials:
    """The images and embeddings that all trials share, split into training and held-out indices."""

    images: Tensor
    embeddings: Tensor  # [N, E]
    mirrored: Tensor  # [N, E], of the images flipped left to right
    training: Tensor  # indices
    held_out: Tensor
    options: TrialOptions

    def run(self, discriminator: nn.Module, layer: str, head: str, steps: int) -> Trial:
        """Train a copy of D on distillation alone and measure what it predicts."""
        student = self._student(discriminator, layer, head)
        draws = torch.Generator().manual_seed(self.options.seed)
        for _ in range(steps):
            rows = self.training[
                torch.randint(len(self.training), [self.options.batch], generator=draws).to(self.training)
            ]
            if torch.rand((), generator=draws) < 0.5:
                student.train_step(self.images[rows].flip(3), self.mirrored[rows])
            else:
                student.train_step(self.images[rows], self.embeddings[rows])
        training, held_out = (
            student.fraction_explained(self.images[rows], self.embeddings[rows])
            for rows in (self.training, self.held_out)
        )
        return Trial(layer, head, training, held_out, steps)

    def seconds_of_a_step(self, discriminator: nn.Module, layer: str) -> float:
        student, rows = self._student(discriminator, layer, "linear"), self.training[: self.options.batch]
        return least_seconds(lambda: float(student.train_step(self.images[rows], self.embeddings[rows])), times=2)

    def _student(self, discriminator: nn.Module, layer: str, head: str) -> ProbeStudent:
        return ProbeStudent(discriminator, layer, head, self.embeddings[self.training], self.options)
