"""Grids of images as PNG files: what people look at while a GAN trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dnnlib.files import write_atomic
from training.data.pixels import to_uint8

__all__ = ["GRIDS", "grid_shape", "save_grid", "save_image", "to_pixels"]

GRIDS = ("fakes", ".png")  # around the kimg


def to_pixels(images: Tensor) -> np.ndarray:
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]; values outside are clipped."""
    return to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()


def grid_shape(resolution: int) -> tuple[int, int]:
    """(rows, columns) of a grid of about 1280 x 720 pixels, within 4 to 8 rows and 8 to 16 columns."""
    return int(np.clip(720 // resolution, 4, 8)), int(np.clip(1280 // resolution, 8, 16))


def save_grid(images: Tensor, path: Path, columns: int, text: Mapping[str, str] | None = None) -> None:
    """Writes [N, C, H, W] in [-1, 1] row by row; the last row is filled up with black."""
    pixels = to_pixels(images)
    count, height, width, channels = pixels.shape
    rows = -(-count // columns)
    padded = np.zeros([rows * columns, height, width, channels], dtype=np.uint8)
    padded[:count] = pixels
    grid = padded.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    save_image(grid.reshape(rows * height, columns * width, channels), path, text)


def save_image(pixels: np.ndarray, path: Path, text: Mapping[str, str] | None = None) -> None:
    """Writes uint8 [H, W, C], C = 1 or 3, as PNG, with texts that say how it was made."""
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    notes = PngInfo()
    for key, value in (text or {}).items():
        notes.add_itxt(key, value)
    write_atomic(path, lambda partial: picture.save(partial, pnginfo=notes))
