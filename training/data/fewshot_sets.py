"""Names that `--data` takes besides a path: public few-shot sets (downloaded) and the demo set (drawn)."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

from dnnlib.errors import UserError
from kd_plugin.download import cache_dir, download
from kd_plugin.errors import KDError, nearest
from training.data.decoding import IMAGE_SUFFIXES
from training.drawings import DemoSpec, write_demo_set

__all__ = ["FEWSHOT_SETS", "reference_of", "resolve_data"]

# Of "Differentiable Augmentation for Data-Efficient GAN Training" (Zhao et al. 2020); images are 256 x 256.
_SOURCE = "https://data-efficient-gans.mit.edu/datasets"
FEWSHOT_SETS = {  # name: number of images
    "100-shot-obama": 100,
    "100-shot-grumpy_cat": 100,
    "100-shot-panda": 100,
    "AnimalFace-cat": 160,
    "AnimalFace-dog": 389,
}
_DEMO_VERSION = 2  # counted up when training.drawings draws differently


def resolve_data(spec: str | os.PathLike[str], flag: str = "--data") -> Path:
    """The zip or folder of `--data=spec`.

    Args:
        spec: a path that exists; else the name of a set in FEWSHOT_SETS, with or without .zip; else `demo`, or
            `demo:COUNT@SEED` for fresh drawings of the same distribution.
        flag: what it was given by, for messages.

    Raises:
        UserError: none of these, with the nearest names; or the download failed, or is not a zip.
    """
    typed = os.fspath(spec)
    # "Copy as path" brings quotes along, and no shell expands the ~ of --data=~/set.zip.
    path = next((path for path in (Path(typed), Path(typed.strip("\"'")).expanduser()) if path.exists()), None)
    if path is not None:
        return path
    name = typed.removesuffix(".zip")
    if (demo := DemoSpec.parse(name)) is not None:
        return _demo_set(demo)
    if name in FEWSHOT_SETS:
        return _fewshot_set(name)
    raise UserError(f"{flag}: '{spec}' is neither an existing zip or folder nor a known set{_hint(typed, name)}")


def _hint(typed: str, name: str) -> str:
    """What may have been meant: files beside it, and the names of sets unless it is clearly a path."""
    where = Path(typed).expanduser().parent
    beside = sorted(path.name for path in where.glob("*") if path.is_dir() or path.suffix == ".zip")
    near = nearest(Path(typed).name, beside, exhaustive=False)
    if not any(mark in typed for mark in "/\\~"):
        return near or nearest(name, [*FEWSHOT_SETS, "demo"])
    if not where.is_dir():
        return f"; the folder '{where}' does not exist either"
    return near or (f"; '{where}' holds {', '.join(beside[:6])}" if beside else f"; '{where}' holds no zip or folder")


def reference_of(spec: str, count: int = 5000) -> str | None:
    """More images of the distribution of `--data=spec`: `count` new drawings for the demo set, else None."""
    demo = DemoSpec.parse(spec)
    return None if demo is None else f"demo:{count}@{demo.series + 1}"


def _fewshot_set(name: str) -> Path:
    url = f"{_SOURCE}/{name}.zip"
    by_hand = "fetch it by hand and give it as --data=PATH, or try --data=demo"
    try:
        # No checksum of these files is published: what is wrong with one shows in the archive itself.
        return download(
            url,
            f"{name}.zip",
            problem_of=lambda path: _problem_of(path, FEWSHOT_SETS[name]),
            what=f"--data: the set {name}",
            instead=by_hand,
        )
    except KDError as error:
        raise UserError(str(error)) from None


def _problem_of(path: Path, count: int) -> str:
    """What is wrong with the zip of a set of `count` images, or ""."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # reads every member and its checksum
            images = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in archive.namelist())
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError):
        return "no whole zip file"
    if damaged is not None:
        return f"a zip file whose member '{damaged}' is damaged"
    return f"{images} images, and the set has {count}" if images != count else ""


def _demo_set(spec: DemoSpec) -> Path:
    path = cache_dir() / f"demo-drawings-v{_DEMO_VERSION}-{spec.count}-{spec.series}-{spec.size}px.zip"
    if not path.is_file():
        try:
            write_demo_set(path, spec)
        except OSError as error:
            raise UserError(
                f"--data: cannot write the demo set to '{path}' ({error.strerror}); set KD_CACHE to another folder"
            ) from None
    return path
