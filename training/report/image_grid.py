"""Grids of images as PNG files: what people look at while a GAN trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from dnnlib.files import write_atomic
from training.data.pixels import to_uint8

__all__ = ["GRIDS", "MODES", "arrange", "grid_shape", "picture", "save_grid", "save_image", "to_pixels"]

GRIDS = ("fakes", ".png")  # around the kimg
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of Pillow, by channels


def to_pixels(images: Tensor) -> np.ndarray:
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]; values outside are clipped."""
    return to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()


def grid_shape(resolution: int) -> tuple[int, int]:
    """(rows, columns) of a grid of about 1280 x 720 pixels, within 4 to 8 rows and 8 to 16 columns."""
    return int(np.clip(720 // resolution, 4, 8)), int(np.clip(1280 // resolution, 8, 16))


def arrange(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """uint8 [H, W, C] each -> [rows·H, columns·W, C], row by row; the rest of the last row is black."""
    height, width, channels = tiles[0].shape
    rows = -(-len(tiles) // columns)
    grid = np.zeros([rows * height, columns * width, channels], np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return grid


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, C], C = 1 to 4, as a picture."""
    channels = pixels.shape[2]
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, MODES[channels])


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    """Writes [N, C, H, W] in [-1, 1] as PNG; see `arrange`."""
    save_image(arrange(list(to_pixels(images)), columns), path)


def save_image(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 [H, W, C] as PNG."""
    image = picture(pixels)
    write_atomic(path, lambda partial: image.save(partial))
