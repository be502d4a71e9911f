"""Converting between pixels (0 to 255) and network values (-1 to 1)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["to_float", "to_uint8"]


def to_float(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], of the same shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] -> uint8 of the same shape; values outside are clipped."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
