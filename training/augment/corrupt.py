"""ADA image-space corruption: additive noise and cutout.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

__all__ = ["add_noise", "cut_out", "draw_cutout", "draw_sigma"]


def draw_sigma(spec: AugmentSpec, draws: Draws) -> Tensor:
    """Standard deviation of each image's noise, [N] float64 on the CPU."""
    return (draws.half_normal() * spec.noise_std).where(draws.gate(spec.noise * draws.p), 0)


def add_noise(images: Tensor, sigma: Tensor) -> Tensor:
    """Adds N(0, sigma²) to each value of images [N,C,H,W]; `sigma` is [N]."""
    if not sigma.any():
        return images
    return images + torch.randn_like(images) * sigma.to(images, non_blocking=True).view(-1, 1, 1, 1)


def draw_cutout(spec: AugmentSpec, draws: Draws) -> Tensor:
    """Side of each image's hole and its centre (x, y), in parts of the image: [N,3] float64 on the CPU."""
    side = draws.uniform().new_full((draws.batch,), spec.cutout_size)
    side = side.where(draws.gate(spec.cutout * draws.p), 0)
    return torch.stack([side, draws.uniform(), draws.uniform()], dim=1)


def cut_out(images: Tensor, holes: Tensor) -> Tensor:
    """Zeroes the pixels of images [N,C,H,W] whose middle lies in the rectangle `holes` [N,3], see `draw_cutout`."""
    if not holes[:, 0].any():
        return images
    height, width = images.shape[2:]
    half, x, y = (holes / holes.new_tensor([2, 1, 1]))[:, :, None].unbind(1)  # [N,1] each
    in_columns = ((torch.arange(width) + 0.5) / width - x).abs() < half  # [N,W]
    in_rows = ((torch.arange(height) + 0.5) / height - y).abs() < half  # [N,H]
    hole = in_rows.to(images.device)[:, None, :, None] & in_columns.to(images.device)[:, None, None, :]
    return images.masked_fill(hole, 0)
