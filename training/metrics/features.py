"""How images become the features that metrics compare: a frozen TorchScript network, run in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.download import sha256_of
from training.dataset import ImageDataset

__all__ = ["Detector", "load_detector", "real_features"]

_CONTRACT = "expected a TorchScript network called net(uint8 [N,3,H,W], return_features=True) -> float [N,F]"


@dataclass(frozen=True)
class Detector:
    """`detector(pixels)`: uint8 [N, 3, H, W] -> float32 [N, width].

    Attributes:
        name: the file's name without suffix.
        sha256: of the file. Distances by different detectors do not compare.
        width: number of features.
        device: where the network runs.
    """

    name: str
    sha256: str
    width: int
    device: torch.device
    network: Any

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network(pixels.to(self.device), return_features=True).float()
        # The statistics are float64, which Apple's GPUs lack.
        return features.cpu() if self.device.type == "mps" else features


def load_detector(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Detector:
    """Read a detector and try it on two random images, so that it fails now and not after hours.

    Raises:
        UserError: the file is missing, not TorchScript, or does not keep to the contract.
    """
    file, where = Path(path), torch.device(device)
    if not file.is_file():
        raise UserError(f"--detector: '{path}' does not exist; {_CONTRACT}")
    try:
        network = torch.jit.load(str(file), map_location=where).eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--detector: cannot read '{path}' ({_first_line(error)}); {_CONTRACT}") from None
    noise = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            features = network(noise.to(where), return_features=True)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"--detector: '{path}' cannot be called ({_first_line(error)}); {_CONTRACT}") from None
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        got = f"[{', '.join(map(str, features.shape))}]" if isinstance(features, Tensor) else type(features).__name__
        raise UserError(f"--detector: '{path}' returned {got} for two images; {_CONTRACT}")
    if not features.isfinite().all():
        raise UserError(f"--detector: '{path}' returned NaN or infinity for random pixels")
    return Detector(file.stem, sha256_of(file), features.shape[1], where, network)


def real_features(detector: Detector, dataset: ImageDataset, batch: int) -> Iterator[Tensor]:
    """Features [B, width] of all images of the dataset, in their order, `batch` at a time."""
    threads = min(os.cpu_count() or 1, 8)
    for first in range(0, len(dataset), batch):
        pixels, _ = dataset.gather(np.arange(first, min(first + batch, len(dataset))), threads)
        yield detector(torch.from_numpy(pixels))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
