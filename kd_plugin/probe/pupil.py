"""A discriminator's copy that learns from a teacher alone, without a game: what can be taught at all?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.diagnostics import errors_of, fraction_explained
from kd_plugin.distances import DISTANCES
from kd_plugin.normalization import Normalization
from kd_plugin.student.heads import make_head, student_width
from kd_plugin.student.tap import FeatureTap, inside
from kd_plugin.types import Pairs

__all__ = ["Inputs", "Pupil"]

LEARNING_RATE = 1e-3  # half of StyleGAN2's: not all nets scale their weights

Inputs = Callable[[Tensor], tuple[Any, ...]]  # images [N, C, H, W] -> what D is called with


class Pupil:
    """Taught by AGKD on standardised embeddings.

    Args:
        discriminator: D; it stays as it is.
        layer: one name, or several with commas.
        head: as `make_head` takes it.
        known: [N, E], the teacher's embeddings of the images to learn; they give the scale.
        inputs: what D is called with on images.
        batch: images a call of D.
        seed: of the head.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        layer: str,
        head: str,
        known: Tensor,
        inputs: Inputs,
        batch: int,
        seed: int = 0,
        lr: float = LEARNING_RATE,
    ) -> None:
        self._d = copy.deepcopy(inside(discriminator)).train().requires_grad_(True)
        self._tap = FeatureTap(self._d, layer.split(","))
        width = sum(student_width(module) or 0 for module in self._tap.layers.values())
        self._head = make_head(head, width, known.shape[1], seed).to(known.device)
        self._space = Normalization("standardise", False, known.shape[1], known.device)
        self._space.observe(known)
        self._distance, self._inputs, self._batch = DISTANCES["l1"], inputs, batch
        self._parameters = [*self._d.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=lr, betas=(0.0, 0.99), eps=1e-8)

    def learn(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """One step on [N, C, H, W] and the teacher's embeddings of them; its loss."""
        pairs = self._pairs(images, embeddings)
        loss = self._distance.between(pairs.student, pairs.teacher)
        # Not a backward pass, which would add to whatever else `inputs` may have used.
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def share(self, images: Tensor, embeddings: Tensor) -> float:
        """1 - distance / distance of the best constant, which is that of these very images."""
        self._d.eval()
        pairs = self._pairs(images, embeddings)
        self._d.train()
        return fraction_explained(*errors_of(pairs, self._distance))

    def _pairs(self, images: Tensor, embeddings: Tensor) -> Pairs:
        with self._tap.capture("real"):
            for part in torch.split(images, self._batch):
                self._d(*self._inputs(part))
        return self._space.compared(Pairs(self._head(self._tap.release().features), embeddings))
