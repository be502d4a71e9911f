"""ADA colour: five transforms as one 4x4 matrix per image on homogeneous (red, green, blue, 1).

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dnnlib.errors import UserError
from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

__all__ = ["apply_matrix", "draw_matrix"]

ONE = torch.eye(4, dtype=torch.float64)
RGB = torch.diag(torch.tensor([1, 1, 1, 0], dtype=torch.float64))
SHIFT = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.float64)
# With the luma axis v = (1, 1, 1) / sqrt(3):
ALONG = RGB @ torch.ones_like(ONE) @ RGB / 3  # v vᵀ: the part of a colour along the axis, its brightness
ACROSS = RGB - ALONG  # the rest: hue and saturation
CROSS = torch.tensor(  # the product v ×, which generates the rotations about the axis
    [[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64
) / math.sqrt(3)


def draw_matrix(spec: AugmentSpec, draws: Draws) -> Tensor:
    """One random colour transform per image: [N,4,4] float64, for pixels in [-1,1].

    Each step is a sum of constant matrices with a random coefficient, multiplied from the left in the paper's order.
    """
    matrix = ONE.repeat(draws.batch, 1, 1)

    def times(coefficient: Tensor, direction: Tensor) -> Tensor:
        return coefficient[:, None, None] * direction

    if spec.brightness:
        shift = (draws.normal() * spec.brightness_std).where(draws.gate(spec.brightness * draws.p), 0)
        matrix = (ONE + times(shift, SHIFT)) @ matrix
    if spec.contrast:
        factor = (draws.normal() * spec.contrast_std).exp2().where(draws.gate(spec.contrast * draws.p), 1)
        matrix = (ONE + times(factor - 1, RGB)) @ matrix
    if spec.lumaflip:  # Householder reflection: dark and bright change places, hue and saturation stay
        flipped = draws.choice(2).where(draws.gate(spec.lumaflip * draws.p), 0)
        matrix = (ONE - times(2 * flipped, ALONG)) @ matrix
    if spec.hue:  # Rodrigues' formula
        angle = (draws.symmetric() * (math.pi * spec.hue_max)).where(draws.gate(spec.hue * draws.p), 0)
        matrix = (ONE + times(angle.sin(), CROSS) + times(angle.cos() - 1, ACROSS)) @ matrix
    if spec.saturation:
        factor = (draws.normal() * spec.saturation_std).exp2().where(draws.gate(spec.saturation * draws.p), 1)
        matrix = (ONE + times(factor - 1, ACROSS)) @ matrix
    return matrix


def apply_matrix(images: Tensor, matrix: Tensor) -> Tensor:
    """Colour transforms [N,4,4] (on the CPU) of images [N,3,H,W] or grey images [N,1,H,W].

    A grey image is treated as the colour image with three equal channels, of whose result the mean is kept.

    Raises:
        UserError: the images have neither 1 nor 3 channels.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"--augpipe: colour transforms need images with 1 or 3 channels, got {channels}; "
            "choose blit, geom, bg, filter, noise or cutout."
        )
    if (matrix == ONE).all():
        return images
    mixing, offset = matrix[:, :3, :3], matrix[:, :3, 3:]
    if channels == 1:
        mixing, offset = mixing.sum(2, keepdim=True).mean(1, keepdim=True), offset.mean(1, keepdim=True)
    mixing, offset = mixing.to(images, non_blocking=True), offset.to(images, non_blocking=True)
    return torch.baddbmm(offset, mixing, images.flatten(2)).view_as(images)  # [N,C,C] @ [N,C,HW]
