"""Pictures as files: PNG, JPEG, WebP or numpy arrays, each telling how it was made; and zips for other programs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dnnlib.errors import UserError
from dnnlib.files import write_atomic

__all__ = [
    "FORMATS",
    "GRID",
    "INDEX",
    "MOST_GRID_PIXELS",
    "arrange",
    "picture",
    "require_free",
    "require_picture",
    "save_picture",
    "write_zip",
]

FORMATS = ("png", "jpg", "webp", "npz")
GRID, INDEX = "grid", "index.json"
MOST_GRID_PIXELS = 100_000_000  # of a grid: a larger one opens in few programs
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_IMAGE_DESCRIPTION = 0x010E  # of Exif
_ONE_TIME = (1980, 1, 1, 0, 0, 0)  # of a zip's members: equal images make equal files
_KEY = "kd_plugin"


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, C] as a picture; see `require_picture`."""
    channels = pixels.shape[2]
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, _MODES[channels])


def require_picture(channels: int, format: str | None = None) -> None:
    """
    Args:
        channels: of the network's images.
        format: that --format names; None: the command has no other than pictures.

    Raises:
        UserError: they cannot be pictures.
    """
    if channels in (1, 3) or (channels in (2, 4) and format != "jpg"):
        return
    advice = "only `generate.py --format=npz` writes them" if format is None else "give --format=npz"
    came = "" if format is None else f"--format={format}: "
    raise UserError(f"{came}the network's images have {channels} channels; {advice}")


def require_free(path: Path, flag: str) -> None:
    """
    Raises:
        UserError: a file cannot be written there, because it is a folder or its name is too long; names `flag`.
    """
    try:
        is_folder = path.is_dir()
        path.exists()
    except OSError as error:
        raise UserError(f"{flag}: '{path}' cannot be a file ({error.strerror})") from None
    if is_folder:
        raise UserError(f"{flag}: '{path}' is a folder; give another name")


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


def arrange(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """uint8 [H, W, C] each -> [rows·H, columns·W, C], row by row; the rest of the last row is black."""
    height, width, channels = tiles[0].shape
    rows = -(-len(tiles) // columns)
    grid = np.zeros([rows * height, columns * width, channels], np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return grid


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
