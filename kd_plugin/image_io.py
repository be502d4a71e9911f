"""Reading the images of a folder or a zip into one tensor, without the trainer."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_plugin.errors import KDError, first_line

__all__ = ["read_pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_pictures(path: str, size: int, most: int) -> Tensor:
    """[N, 3, size, size] in [-1, 1]: the middle square of each image, resized; of more than `most`, every k-th.

    Args:
        path: a folder or a zip with images anywhere below.
        size: in pixels.
        most: images.

    Raises:
        KDError: Pillow is missing, nothing there, or an image that cannot be read.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise KDError(f"--data: reading images needs Pillow ({error}): pip install pillow") from error
    names, read = _source(path)
    names = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    if not names:
        raise KDError(f"--data: '{path}' holds no images ({' '.join(SUFFIXES)})")
    rows = []
    for name in names[:: -(-len(names) // most)]:
        try:
            with Image.open(io.BytesIO(read(name))) as image:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                square = image.convert("RGB").crop((left, top, left + side, top + side))
                rows.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
        except (OSError, ValueError, SyntaxError) as error:
            raise KDError(f"--data: '{name}' in '{path}' cannot be read ({first_line(error)})") from error
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _source(path: str) -> tuple[list[str], Callable[[str], bytes]]:
    root = Path(path)
    if root.is_dir():
        names = [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()]
        return names, lambda name: (root / name).read_bytes()
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise KDError(
            f"--data: '{path}' is neither a folder nor a zip that can be read ({first_line(error)})"
        ) from error
    return archive.namelist(), archive.read
