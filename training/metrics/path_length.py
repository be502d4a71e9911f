"""The perceptual path length: how smoothly images change along the latent space (ppl2_wend of StyleGAN2-ADA)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_utils.ranks import Job
from torch_utils.seeding import seed_from

__all__ = ["path_jobs", "path_length"]

_EPSILON = 1e-4
_LARGEST = 256  # pixels that the perceptual network sees
_DROPPED = 0.01  # of the distances at either end: a few jumps would decide the mean


def path_length(steps: Tensor) -> float:
    """Mean of [N] squared distances per squared step, without the lowest and the highest hundredth."""
    ordered = steps.double().sort().values
    lowest = ordered[int((len(ordered) - 1) * _DROPPED)]
    highest = ordered[-1 - int((len(ordered) - 1) * _DROPPED)]
    return float(ordered[(ordered >= lowest) & (ordered <= highest)].mean())


def path_jobs(
    G: Any,  # with the mapping and synthesis of training.networks.Generator
    perceptual: Callable[[Tensor], Tensor],
    draw_labels: Callable[[int, torch.Generator], Tensor],
    count: int,
    *,
    batch: int,
    seed: int,
    device: torch.device,
) -> Iterator[Job]:
    """|p(G(w)) - p(G(w'))|² / eps² for w at the end of a random path in W and w' a step of eps along it, [B] at a time.

    Both images have the same noise, another one for each batch. Torch's random state is left as it was found.

    Args:
        G: a StyleGAN2 generator; works on a copy.
        perceptual: images [N, 3, H, W] in [0, 255] -> features [N, F] whose squared distances are LPIPS.
        draw_labels: how many, and what to draw by -> labels [n, c_dim].
        count: paths.
        batch: paths at a time.
        seed: of latents, labels and noise.
        device: where G is.

    Source: Karras et al. 2019 (arXiv 1812.04948), section 4.1; eps, the end point and the dropped hundredths as in
    stylegan2-ada-pytorch.
    """
    G = copy.deepcopy(G).eval()
    draws = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def steps(z: Tensor, c: Tensor, noise_seed: int) -> Tensor:
        noise_draws = torch.Generator().manual_seed(noise_seed)
        for name, noise in G.named_buffers():
            if name.endswith(".noise_const"):
                noise.copy_(torch.randn(noise.shape, generator=noise_draws))
        start, end = G.mapping(z.to(device), torch.cat([c, c]).to(device)).chunk(2)
        images = G.synthesis(torch.cat([start, start.lerp(end, _EPSILON)]), noise_mode="const", force_fp32=True)
        if images.shape[2] > _LARGEST:
            images = F.avg_pool2d(images, images.shape[2] // _LARGEST)
        here, there = perceptual((images + 1) * 127.5).chunk(2)
        return (here - there).square().sum(1) / _EPSILON**2

    for first in range(0, count, batch):
        size = min(batch, count - first)
        z = torch.randn([2 * size, G.z_dim], generator=draws)
        c = draw_labels(size, draws)
        yield Job(size, functools.partial(steps, z, c, seed_from(seed, first)))
