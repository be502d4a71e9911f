"""CLIP's preprocessing of images in [-1, 1]: on the tensor, batched, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CLIP_MEAN", "CLIP_STD", "Preprocess", "resize_and_crop"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize_and_crop(
    images: Tensor, size: int, crop: int | None = None, squash: bool = False, mode: str = "bicubic"
) -> Tensor:
    """Antialiased resize of the shorter side to `size`, then a centre crop, as PIL does it on 8-bit images.

    PIL filters the rows first and then the columns, and clips to the range of a pixel after each. Bicubic filters
    overshoot at edges, so the clip in between shows in the result; a single two-dimensional resize would not have it.
    (Pillow 13 takes the columns first when it shrinks an image over twice as high as wide; older ones never, nor here.)
    An axis that already has its size is left alone.

    Args:
        images: [N, C, H, W] in [0, 1].
        size: of the shorter side, in pixels.
        crop: side of the square result; None: `size`.
        squash: both sides become `size`, whatever the aspect.
        mode: `bicubic`, `bilinear` or `nearest`.

    Returns:
        [N, C, crop, crop] in [0, 1].
    """
    crop = size if crop is None else crop
    height, width = images.shape[-2:]
    short, long = min(height, width), max(height, width)
    longer = int(size * long / short)
    new_height, new_width = (size, longer) if height <= width else (longer, size)
    if squash:
        new_height = new_width = size
    smooth = {} if mode == "nearest" else {"align_corners": False, "antialias": True}
    for target in ((height, new_width), (new_height, new_width)):
        if images.shape[-2:] != target:
            images = F.interpolate(images, target, mode=mode, **smooth).clamp(0, 1)
    top, left = round((new_height - crop) / 2), round((new_width - crop) / 2)
    return images[..., top : top + crop, left : left + crop]


class Preprocess:
    """OpenAI's preprocessing, or one like it: [N, 3, H, W] in [-1, 1] -> [N, 3, crop, crop], normalised.

    Values outside [-1, 1] (a generator may overshoot) are clipped first, as they would be in an image file; they get
    no gradient.

    Source: the transform that OpenAI's clip.load returns (Resize bicubic, CenterCrop, ToTensor, Normalize).
    Differs from it in: no rounding to 8 bits.
    """

    def __init__(
        self,
        size: int,
        mean: tuple[float, float, float] = CLIP_MEAN,
        std: tuple[float, float, float] = CLIP_STD,
        device: torch.device | str = "cpu",
        *,
        crop: int | None = None,
        squash: bool = False,
        mode: str = "bicubic",
    ) -> None:
        self.size, self.crop = size, size if crop is None else crop
        self.normalisation = (mean, std)
        self._squash, self._mode = squash, mode
        # Made once: a tensor made from Python numbers at every call is a host-to-device copy at every call.
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (self._resized(images) - self._mean) / self._std

    def shown(self, images: Tensor) -> Tensor:
        """The same without the normalisation: [N, 3, crop, crop] in [-1, 1], for inspection."""
        return self._resized(images) * 2 - 1

    def _resized(self, images: Tensor) -> Tensor:
        unit = ((images + 1) / 2).clamp(0, 1)
        return resize_and_crop(unit, self.size, self.crop, self._squash, self._mode)
