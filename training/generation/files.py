"""Pictures as files: PNG, JPEG, WebP or numpy arrays, each telling how it was made; and zips for other programs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.report.image_grid import MODES, picture

__all__ = ["FORMATS", "GRID", "INDEX", "MOST_GRID_PIXELS", "require_picture", "save_picture", "write_zip"]

FORMATS = ("png", "jpg", "webp", "npz")
GRID, INDEX = "grid", "index.json"
MOST_GRID_PIXELS = 100_000_000  # of a grid: a larger one opens in few programs
_IMAGE_DESCRIPTION = 0x010E  # of Exif
_ONE_TIME = (1980, 1, 1, 0, 0, 0)  # of a zip's members: equal images make equal files
_KEY = "kd_plugin"


def require_picture(channels: int, format: str | None = None) -> None:
    """
    Args:
        channels: of the network's images.
        format: that --format names; None: the command has no other than pictures.

    Raises:
        UserError: they cannot be pictures.
    """
    if channels in (1, 3) or (channels in MODES and format != "jpg"):
        return
    advice = "only `generate.py --format=npz` writes them" if format is None else "give --format=npz"
    came = "" if format is None else f"--format={format}: "
    raise UserError(f"{came}the network's images have {channels} channels; {advice}")


def save_picture(pixels: np.ndarray, path: Path, how: Mapping[str, Any]) -> None:
    """Writes uint8 [H, W, C] in the format of the path's ending, with `how` as JSON: in a PNG's text 'kd_plugin', in
    the Exif ImageDescription of a JPEG or WebP.

    Raises:
        OSError: it cannot be written.
    """
    format = path.suffix[1:]
    image, text = picture(pixels), json.dumps(how)
    if format == "png":
        notes = PngInfo()
        notes.add_itxt(_KEY, text)
        write_atomic(path, lambda partial: image.save(partial, pnginfo=notes))
        return
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = text
    options: dict[str, Any] = {"quality": 95} if format == "jpg" else {"lossless": True}
    write_atomic(path, lambda partial: image.save(partial, exif=exif, **options))


def write_zip(path: Path, images: Iterator[tuple[np.ndarray, int | None]]) -> None:
    """Writes PNGs as the official data sets name them, 00000/img00000000.png, and dataset.json with their labels.

    Args:
        path: of the zip, which appears complete or not at all.
        images: uint8 [H, W, C], and the class.
    """

    def write(partial: Path) -> None:
        labels = []
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for number, (pixels, label) in enumerate(images):
                name = f"{number // 1000:05d}/img{number:08d}.png"
                content = io.BytesIO()
                picture(pixels).save(content, "PNG", compress_level=1)
                archive.writestr(zipfile.ZipInfo(name, _ONE_TIME), content.getvalue())
                if label is not None:
                    labels.append([name, label])
            description = json.dumps({"labels": labels or None})
            archive.writestr(zipfile.ZipInfo("dataset.json", _ONE_TIME), description)

    write_atomic(path, write)
