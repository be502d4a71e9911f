"""Decoding image files to RGB, and the reason if one cannot be decoded."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kd_plugin.errors import first_line

__all__ = ["FILTERS", "IMAGE_SUFFIXES", "UNREADABLE", "decode_image", "fit", "image_size", "reason"]

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What Pillow raises for files it cannot read, and what reading a damaged zip entry raises.
UNREADABLE = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, IndexError, struct.error, Image.DecompressionBombError),
    *(zipfile.BadZipFile, zlib.error),
)


def decode_image(content: bytes, resolution: int | None = None) -> np.ndarray:
    """An image file's content as RGB, [H, W, 3] uint8.

    The camera's rotation is applied, transparency is laid over white, 16-bit grey keeps its upper 8 bits.

    Args:
        content: of a file in any format that Pillow reads.
        resolution: cut the largest square from the centre and resize it (Lanczos) to this many pixels.

    Raises:
        OSError, ValueError, SyntaxError, EOFError: Pillow cannot read it.
    """
    with Image.open(io.BytesIO(content)) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    return np.asarray(image if resolution is None else fit(image, resolution))


def fit(image: Image.Image, resolution: int, crop: bool = True, filter: str = "lanczos") -> Image.Image:
    """An image of `resolution` x `resolution` pixels: the largest square from the centre, resized.

    Args:
        image: RGB.
        resolution: in pixels.
        crop: False: the whole image, squeezed into a square where it is none.
        filter: a name in FILTERS.
    """
    if image.size == (resolution, resolution):
        return image
    if crop:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        # Cropped first: resize(box=...) would let pixels from outside the box into the edges.
        image = image.crop((left, top, left + side, top + side))
    return image.resize((resolution, resolution), FILTERS[filter])


def image_size(content: bytes) -> tuple[int, int]:
    """(width, height), from the header alone.

    Raises:
        as `decode_image`.
    """
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def reason(error: BaseException) -> str:
    """Why an image cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):  # its own text is the address of a buffer
        return "damaged, or not an image"
    return first_line(error)
