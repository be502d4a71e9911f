"""The critic: a small discriminator on the teacher's frozen features, trained beside D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kd_plugin.config.ranges import Range
from kd_plugin.config.schema import option
from kd_plugin.terms.base import TERMS
from kd_plugin.terms.stage_choice import EMBEDDING, StageOptions, StageTerm, joint
from kd_plugin.terms.step import GeneratorStep
from kd_plugin.types import StageView

__all__ = ["Critic", "CriticOptions"]

WIDTH = 128  # channels of a head
SMOOTH = 0.2  # label smoothing: the target of real images is 1 - SMOOTH, as a probability
BETAS = (0.0, 0.99)  # of Adam, as StyleGAN2's


@dataclass(frozen=True)
class CriticOptions(StageOptions):
    """The options of the critic."""

    weight: float = option(
        1.0,
        "Weight of the critic: a second adversarial loss of G, of a small discriminator on the teacher's features",
        metavar="WEIGHT",
    )
    lr: float = option(0.002, "Learning rate of the critic", Range(0, above=True, noun="learning rate"), metavar="RATE")


@TERMS.register("critic")
class Critic(StageTerm):
    """A head on the embedding and on each stage tells generated from real images; G is trained to deceive all of them.

    Every call of `kd.for_generator` trains the heads once, on the same images; call backward before the next one. Their
    loss is the logistic one, with smoothed labels of real images; a stage's head gives one logit for each cell. Without
    augmentation they memorise few images.

    Source: Kumari et al., "Ensembling Off-the-shelf Models for GAN Training" (CVPR 2022; vision-aided GAN). Differs in:
    one teacher instead of a growing ensemble; from the first step instead of after a baseline; heads on averaged cells
    instead of whole maps; trained in G's steps.
    """

    Options = CriticOptions

    def __init__(self, options: CriticOptions, embed_dim: int) -> None:
        super().__init__(options, embed_dim)
        self._lr = options.lr

    def choose_stages(self, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[StageView, ...]:
        views = super().choose_stages(shapes)
        self.heads = nn.ModuleList(
            embedding_head(self._embed_dim) if name == EMBEDDING else cell_head(shapes[name][0])
            for name in self._choice.parts
        ).requires_grad_(False)  # but in train_term()
        return views

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.heads.parameters(), lr=self._lr, betas=BETAS)

    def generator_loss(self, step: GeneratorStep) -> Tensor | Mapping[str, Tensor]:
        return joint({name: softplus(-logits).mean() for name, logits in self._logits(self.fake(step)).items()})

    def training_loss(self, step: GeneratorStep) -> Tensor:
        real, fake = self._logits(self.real(step)), self._logits(self.fake(step))
        of_real = [
            (1 - SMOOTH) * softplus(-logits).mean() + SMOOTH * softplus(logits).mean() for logits in real.values()
        ]
        of_fake = [softplus(logits).mean() for logits in fake.values()]
        return torch.stack(of_real).mean() + torch.stack(of_fake).mean()

    def _logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: head(rows) for head, (name, rows) in zip(self.heads, features.items(), strict=True)}


def embedding_head(width: int) -> nn.Module:
    """[N, E] -> [N, 1]."""
    return nn.Sequential(
        nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1)
    )


def cell_head(channels: int) -> nn.Module:
    """[N, C, g, g] -> [N, 1, g, g]."""
    return nn.Sequential(
        nn.GroupNorm(1, channels, affine=False), nn.Conv2d(channels, WIDTH, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 1, 1),
    )  # fmt: skip
