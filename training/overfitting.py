"""Does the discriminator know its training images by heart? Its scores on them, on images it never saw, and on fakes.

    gap = (train - holdout) / (train - fake)

0: new real images look as real to it as those it was trained on. 1: they look as false as generated ones; it has
learned the training images and nothing else, and the generator is taught to repeat them. Few-shot methods lower this.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_plugin import AnyDistiller
from kd_plugin.distiller import Look
from torch_utils.seeding import own_randomness
from torch_utils.stats import Figure
from training.dataset import ImageDataset
from training.pixels import to_float

__all__ = ["OverfitWatch", "Scores", "gap"]

WINDOW_TICKS = 8  # the gap is of the last so many ticks: one tick's mean scores are noisy
MOST_IMAGES = 512  # of each kind, a tick
_SURE = 3.0  # standard errors that (train - fake) must lie above 0 for a gap to mean anything


@dataclass(frozen=True)
class Scores:
    """Logits of one kind of images: how many, mean, and standard deviation."""

    num: int
    mean: float
    std: float

    @classmethod
    def of(cls, logits: Tensor) -> Scores:
        values = logits.double()
        return cls(values.numel(), float(values.mean()), float(values.std(correction=0)))

    @property
    def variance_of_mean(self) -> float:
        return self.std**2 / self.num


Latents = Callable[[int], tuple[Tensor, Tensor]]
Tick = tuple[Scores, Scores, Scores]  # train, holdout, fake


def gap(ticks: deque[Tick] | list[Tick]) -> float | None:
    """Of the mean scores of these ticks; None where training images and fakes are not told apart."""
    train, holdout, fake = (sum(tick[kind].mean for tick in ticks) / len(ticks) for kind in range(3))
    error = math.sqrt(sum(t.variance_of_mean + f.variance_of_mean for t, _, f in ticks)) / len(ticks)
    lead = train - fake
    return (train - holdout) / lead if lead > _SURE * error and lead > 0 else None


class OverfitWatch:
    """Scores by D, without augmentation, in batches of one kind as in training (D looks across a batch).

    Args:
        train: what D is trained on.
        held_out: real images it is not.
        seed: of the images that are looked at, where there are more than MOST_IMAGES, and of the latents.
        batch: images that D sees at once.
        device: where the networks are.
    """

    def __init__(
        self, train: ImageDataset, held_out: ImageDataset, *, seed: int, batch: int, device: torch.device
    ) -> None:
        self.seed, self.batch, self.device = seed, batch, device
        self.count = min(len(held_out), MOST_IMAGES)
        self._images = [_some(dataset, min(len(dataset), MOST_IMAGES), seed) for dataset in (train, held_out)]
        self._ticks: deque[Tick] = deque(maxlen=WINDOW_TICKS)
        self._explained: Callable[[Look], dict[str, float]] | None = None

    def figures(self, G: nn.Module, D: nn.Module, latents: Latents, nimg: int) -> dict[str, Figure]:
        """Measures now. Torch's random state is left as it was found.

        Args:
            G, D: the networks as they stand.
            latents: count -> z [count, z_dim] and labels [count, c_dim], drawn.
            nimg: images shown so far; another number, other latents.
        """
        with own_randomness(self.device, self.seed, nimg), torch.no_grad():
            real = [self._score(D, pixels.to(self.device), c.to(self.device)) for pixels, c in self._images]
            z, c = latents(self.count)
            parts = zip(z.split(self.batch), c.split(self.batch), strict=True)
            fake = Scores.of(torch.cat([D(G(z_part, c_part), c_part) for z_part, c_part in parts]))
        tick = (real[0], real[1], fake)
        self._ticks.append(tick)
        found = {
            f"Overfit/{name}": Figure(scores.num, scores.mean, scores.std)
            for name, scores in zip(("train", "holdout", "fake"), tick, strict=True)
        }
        value = gap(self._ticks)
        return found if value is None else found | {"Overfit/gap": Figure(len(self._ticks), value)}

    def explained(self, kd: AnyDistiller, D: nn.Module) -> float | None:
        """The share of the teacher that D explains on the held-out images; None where no term compares with it."""
        pixels, labels = (tensor.to(self.device) for tensor in self._images[1])
        if self._explained is None:
            self._explained = kd.held_out(to_float(pixels), self.batch)

        def look(shown: Tensor) -> None:
            for part, c in zip(shown.split(self.batch), labels.split(self.batch), strict=True):
                D(part, c)

        return self._explained(look).get("total")

    def state_dict(self) -> dict[str, Any]:
        return {"ticks": [[[s.num, s.mean, s.std] for s in tick] for tick in self._ticks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ticks.clear()
        self._ticks.extend(tuple(Scores(*s) for s in tick) for tick in state["ticks"])

    def _score(self, D: nn.Module, pixels: Tensor, labels: Tensor) -> Scores:
        parts = zip(pixels.split(self.batch), labels.split(self.batch), strict=True)
        return Scores.of(torch.cat([D(to_float(part), c) for part, c in parts]))


def _some(dataset: ImageDataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels and labels of `count` images, the same ones for the same seed."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    pixels, labels = dataset.gather(chosen)
    return torch.from_numpy(pixels), torch.from_numpy(labels)
