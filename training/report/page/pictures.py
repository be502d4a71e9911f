"""Pictures inside the page: small enough that a page of many opens at once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["evenly", "file_uri", "pixels_uri"]

_WIDEST = 1280  # of a grid in the page, in pixels
_PAIR = 144  # of a picture of a pair: twice the page's 72, for fine screens
_LOSSLESS_BYTES = 100_000  # grids of small images; above that WebP at quality 85
_QUALITY = 85


def file_uri(path: Path) -> str:
    """A picture's data URI, no wider than the page shows it; "" where the file is damaged."""
    try:
        with Image.open(path) as picture:
            return _uri(picture.convert("RGB"))
    except OSError:
        return ""


def pixels_uri(pixels: np.ndarray) -> str:
    """Of uint8 [3, H, W], no larger than pairs are shown."""
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture.thumbnail((_PAIR, _PAIR), Image.Resampling.LANCZOS)
    return _uri(picture)


def evenly(items: Sequence[float], most: int) -> list[float]:
    """At most `most` of them, the first and the last among them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[round(index)] for index in np.linspace(0, len(items) - 1, most)]


def _uri(picture: Image.Image) -> str:
    if picture.width > _WIDEST:
        size = (_WIDEST, round(picture.height * _WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    content = _encoded(picture, lossless=True)
    if len(content) > _LOSSLESS_BYTES:
        content = _encoded(picture, lossless=False)
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _encoded(picture: Image.Image, lossless: bool) -> bytes:
    content = io.BytesIO()
    picture.save(content, "webp", lossless=lossless, quality=_QUALITY)
    return content.getvalue()
