"""What the page of `generate.py ui` shows: images of seeds and between seeds, and their nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.cli import LARGEST_SEED
from dnnlib.errors import UserError
from training.data.dataset import ImageDataset
from training.generation.inputs import Source
from training.generation.interpolation import lerp, slerp
from training.metrics.detectors import Detector
from training.metrics.neighbours import nearest, nearest_others
from training.metrics.samples import real_sample
from training.report.image_grid import to_pixels

__all__ = ["Playground", "seed_of"]

SHOWN = 384  # pixels of an image on the page, at least


class Playground:
    """
    Args:
        source: the network.
        noise_mode: of its noise inputs.
        trunc_cutoff: how many layers are truncated; None: all.
        train: the training images; None: none are shown.
        detector: what compares images.

    Raises:
        UserError: the page cannot show images of this number of channels.
    """

    def __init__(
        self,
        source: Source,
        noise_mode: str = "const",
        trunc_cutoff: int | None = None,
        train: ImageDataset | None = None,
        detector: Detector | None = None,
    ) -> None:
        if source.G.img_channels not in (1, 3):
            raise UserError(f"ui: the network's images have {source.G.img_channels} channels, the page shows 1 or 3")
        self._source, self._noise_mode, self._trunc_cutoff = source, noise_mode, trunc_cutoff
        self.train, self._detector = train, detector
        if train is not None and detector is not None:
            self._known = real_sample(detector, train, keep=True).rows
            self._unit = float(nearest_others(self._known, same=train.used).median()) or 1.0

    @property
    def classes(self) -> Sequence[str]:
        """Their names, or else their numbers; none of an unconditional network."""
        return [str(self._source.class_name(index)) for index in range(self._source.G.c_dim)]

    @torch.no_grad()
    def image(self, seed: int, psi: float, label: int | None) -> Tensor:
        """[1, C, R, R] in about [-1, 1]."""
        G = self._source.G
        z, c = self._source.z([seed]), self._source.label(label)
        images: Tensor = G(z, c, psi, self._trunc_cutoff, self._noise_mode)
        return images

    @torch.no_grad()
    def between(self, first: int, second: int, share: float, psi: float, label: int | None) -> Tensor:
        """An image on the way from one seed (share 0) to another (1): straight in w, or else along the sphere in z."""
        G: Any = self._source.G
        z, c = self._source.z([first, second]), self._source.label(label)
        if not G.has_w:
            images: Tensor = G(slerp(z[0], z[1], share)[None], c, psi, self._trunc_cutoff, self._noise_mode)
            return images
        ws = G.mapping(z, c.expand(2, -1), psi, self._trunc_cutoff, skip_w_avg_update=True)
        images = G.synthesis(lerp(ws[0], ws[1], share)[None], self._noise_mode)
        return images

    def shown(self, image: Tensor) -> np.ndarray:
        """Pixels [H, W, 3] of an image [1, C, R, R], each enlarged if there are few."""
        return _large(to_pixels(image)[0])

    def closest(self, image: Tensor) -> tuple[np.ndarray, str] | None:
        """The nearest training image as pixels [H, W, 3], and a line on it; None without training images."""
        if self.train is None or self._detector is None:
            return None
        pixels = torch.from_numpy(to_pixels(image)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        found = nearest(self._detector(pixels).cpu(), self._known)
        number, distance = int(found.index[0]), float(found.distance[0]) / self._unit
        known, _ = self.train.gather(np.array([number]))
        line = (
            f"{self.train.file_name(number)}: at {distance:.2f} times the distance that is usual between neighbours "
            f"among the {self.train.used} training images, by {self._detector.name}; far below 1: a copy"
        )
        return _large(known[0].transpose(1, 2, 0)), line


def _large(pixels: np.ndarray) -> np.ndarray:
    times = -(-SHOWN // pixels.shape[0])
    large = pixels.repeat(times, 0).repeat(times, 1)
    return large.repeat(3, 2) if large.shape[2] == 1 else large


def seed_of(value: float | None) -> int:
    """
    Raises:
        ValueError: not the number of a seed.
    """
    if value is None or value != int(value) or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED}")
    return int(value)
