"""Which of the files of a zip or a folder are used as images."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dnnlib.errors import UserError
from dnnlib.tables import FileTable, open_table
from kd_plugin.file_kinds import what_it_is
from training.data.decoding import IMAGE_SUFFIXES

__all__ = ["chosen", "open_files", "without_grids"]

_GENERATED = re.compile(r"(seed\d{4,}|proj\d\d)[^/]*\.(png|jpg|webp)")


def open_files(path: Path, flag: str) -> FileTable:
    """The images in a folder or a zip, and dataset.json.

    Raises:
        UserError: there are none; names `flag`.
    """
    if not path.exists():
        raise UserError(f"{flag}: '{path}' does not exist")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{flag}: '{path}' is neither a file nor a folder{what_it_is(path)}")
    try:
        files = open_table(path, IMAGE_SUFFIXES, companion="dataset.json")
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(
            f"{flag}: cannot read '{path}' ({error}); expected a folder or a zip of images{what_it_is(path)}"
        ) from None
    if files.skipped[".pt"] and any(path.glob("training-state.pt")) | any(path.glob("*/training-state.pt")):
        raise UserError(f"{flag}: '{path}' holds no images to use{what_it_is(path)}")  # a run's: grids
    if not len(files):
        zips = list(path.glob("*.zip")) if path.is_dir() else []
        hint = f"; did you mean {flag}='{zips[0]}'?" if zips else what_it_is(path)
        raise UserError(f"{flag}: '{path}' holds no images ({' '.join(IMAGE_SUFFIXES)}){hint}")
    return files


def without_grids(names: list[str]) -> np.ndarray:
    """The numbers of all files except grids that generate.py has written beside its images."""
    beside = {name.rpartition("/")[0] for name in names if _GENERATED.fullmatch(name.rpartition("/")[2])}
    grids = {f"{folder}/grid.{kind}".lstrip("/") for folder in beside for kind in ("png", "jpg", "webp")}
    return np.array([number for number, name in enumerate(names) if name not in grids])


def chosen(count: int, max_size: int | None, holdout: int, held_out: bool, seed: int) -> np.ndarray:
    """Numbers of the images in use, ascending.

    Args:
        count: number of images there are.
        max_size, holdout, held_out, seed: as ImageDataset's.

    Raises:
        UserError: fewer images than are asked for; names the flag.
    """
    if not 0 <= holdout < count:
        raise UserError(f"--holdout: expected 0 to {count - 1}, less than the number of images, got {holdout}")
    if max_size is None and not holdout:
        return np.arange(count)
    left = count - holdout
    if max_size is not None and not 1 <= max_size <= left:
        kept = f" less the {holdout} of --holdout" if holdout else ""
        raise UserError(f"--subset: expected 1 to {left}, the number of images{kept}, got {max_size}")
    # The old generator on purpose: it draws the very images that official runs of the same seed train on. Those that
    # are held out are taken from the other end, so holding out does not change a subset.
    order = np.random.RandomState(seed).permutation(count)
    return np.sort(order[left:] if held_out else order[: left if max_size is None else max_size])
