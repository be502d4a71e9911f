"""The overfitting gap: D's scores on its training images, on held-out images, and on fakes.

    gap = (train - holdout) / (train - fake)

0: unseen real images look as real as training images. 1: they look as fake as generated ones: D has memorised its
training images, and the generator learns to repeat them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_plugin import AnyDistiller
from kd_plugin.interface import RunD
from torch_utils.seeding import own_randomness
from torch_utils.stats import Stat
from training.data.dataset import ImageDataset
from training.data.pixels import to_float

__all__ = ["OverfittingMonitor", "Scores", "gap"]

WINDOW_TICKS = 8  # the gap is averaged over these ticks: one tick's mean scores are noisy
MOST_IMAGES = 512  # of each kind, a tick
_SURE = 3.0  # standard errors that (train - fake) must lie above 0 for a gap to mean anything


@dataclass(frozen=True)
class Scores:
    """Logits of one kind of image: number, mean, and standard deviation."""

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
    """The gap of the mean scores of these ticks; None while D does not separate training images from fakes."""
    train, holdout, fake = (sum(tick[kind].mean for tick in ticks) / len(ticks) for kind in range(3))
    error = math.sqrt(sum(t.variance_of_mean + f.variance_of_mean for t, _, f in ticks)) / len(ticks)
    lead = train - fake
    return (train - holdout) / lead if lead > _SURE * error and lead > 0 else None


@contextmanager
def unchanged_buffers(*networks: nn.Module) -> Iterator[None]:
    """Calls in training mode move running statistics and singular vectors; afterwards they are as they were."""
    kept = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    yield
    for buffer, before in kept:
        buffer.copy_(before)


class OverfittingMonitor:
    """Scores by D, without augmentation, in batches of one kind as in training (D looks across a batch).

    Args:
        train: what D is trained on.
        held_out: real images it is not.
        seed: of the images that are looked at, where there are more than MOST_IMAGES, and of the latents.
        batch: images that D sees at once.
        device: where the networks are.
        kd: the run's distillation; then the fraction explained on the held-out images is measured too.
    """

    def __init__(
        self,
        train: ImageDataset,
        held_out: ImageDataset,
        *,
        seed: int,
        batch: int,
        device: torch.device,
        kd: AnyDistiller | None = None,
    ) -> None:
        self.seed, self.batch, self.device = seed, batch, device
        self.count = min(len(held_out), MOST_IMAGES)
        self._images = [_some(dataset, min(len(dataset), MOST_IMAGES), seed) for dataset in (train, held_out)]
        self._ticks: deque[Tick] = deque(maxlen=WINDOW_TICKS)
        self._kd = kd
        self._explained: Callable[[RunD], dict[str, float]] | None = None  # the teacher looks at the first tick

    def stats(self, G: nn.Module, D: nn.Module, latents: Latents, nimg: int) -> dict[str, Stat]:
        """Measure now. Torch's random state and the networks' buffers are restored.

        Args:
            G, D: the networks as they stand.
            latents: count -> z [count, z_dim] and labels [count, c_dim], drawn.
            nimg: images shown so far; another number, other latents.
        """
        with own_randomness(self.device, self.seed, nimg), unchanged_buffers(G, D), torch.no_grad():
            train = self._score(D, *self._ready(0))
            holdout, shares = self._held_out(D, *self._ready(1))
            z, c = latents(self.count)
            parts = zip(z.split(self.batch), c.split(self.batch), strict=True)
            fake = Scores.of(torch.cat([D(G(z_part, c_part), c_part) for z_part, c_part in parts]))
        tick = (train, holdout, fake)
        self._ticks.append(tick)
        stats = {
            f"Overfit/{name}": Stat(scores.num, scores.mean, scores.std)
            for name, scores in zip(("train", "holdout", "fake"), tick, strict=True)
        }
        if (value := gap(self._ticks)) is not None:
            stats["Overfit/gap"] = Stat(len(self._ticks), value)
        if "total" in shares:
            stats["KD/explained_holdout"] = Stat(1, shares["total"])
        return stats

    def state_dict(self) -> dict[str, Any]:
        return {"ticks": [[[s.num, s.mean, s.std] for s in tick] for tick in self._ticks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ticks.clear()
        for train, holdout, fake in state["ticks"]:
            self._ticks.append((Scores(*train), Scores(*holdout), Scores(*fake)))

    def _ready(self, kind: int) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] and labels, on the device: 0 for training images, 1 for held-out ones."""
        pixels, labels = self._images[kind]
        return to_float(pixels.to(self.device)), labels.to(self.device)

    def _held_out(self, D: nn.Module, images: Tensor, labels: Tensor) -> tuple[Scores, dict[str, float]]:
        """D's scores and, of the same calls, the fractions explained."""
        if self._kd is None:
            return self._score(D, images, labels), {}
        if self._explained is None:
            self._explained = self._kd.held_out(images, self.batch)
        scores: list[Scores] = []
        shares = self._explained(lambda shown: scores.append(self._score(D, shown, labels)))
        return scores[0], shares

    def _score(self, D: nn.Module, images: Tensor, labels: Tensor) -> Scores:
        parts = zip(images.split(self.batch), labels.split(self.batch), strict=True)
        return Scores.of(torch.cat([D(part, c) for part, c in parts]))


def _some(dataset: ImageDataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels and labels of `count` images, the same ones for the same seed."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    pixels, labels = dataset.gather(chosen)
    return torch.from_numpy(pixels), torch.from_numpy(labels)
