"""What the judges of the study say of a trained network's images, besides the metrics of its run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from studies.sliced_wasserstein import sliced_wasserstein
from training.checkpoint import load_snapshot
from training.data.image_sets import ImageOptions, open_reference
from training.data.pixels import to_uint8

__all__ = ["swd_of"]

MOST = 500  # images of each kind


def swd_of(network: Path, images: ImageOptions) -> float:
    """The sliced Wasserstein distance, times 1000, of a snapshot's images to those its run is compared with."""
    reals = torch.cat(list(open_reference(images).images(MOST)))
    return sliced_wasserstein(samples(network, len(reals)), to_uint8(reals))


@torch.no_grad()
def samples(network: Path, count: int, batch: int = 50) -> Tensor:
    """uint8 [N, 3, R, R], not selected, of latents that are the same for every network."""
    generator = load_snapshot(network).G_ema
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # of the noise
    return torch.cat([to_uint8(generator(part, torch.zeros(len(part), 0))) for part in z.split(batch)])
