"""CIFAR-10 and CIFAR-100: the archive for Python or its folder. The batches are pickles; no code in them is run."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from kd_plugin.errors import first_line
from training.data.sources.base import Content, Source

__all__ = ["Cifar", "safe_unpickle"]

_SIDE = 32
# The files of each set and split, in the order in which the images are numbered; and where the names of classes are.
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_LAYOUTS = (
    (("batches.meta", "label_names", b"labels"), _BATCHES),
    (("meta", "fine_label_names", b"fine_labels"), {"train": ["train"], "test": ["test"]}),
)
_ALLOWED = {  # what arrays of any version of numpy are made of
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(("numpy", name) for name in ("ndarray", "dtype")),
    ("_codecs", "encode"),
}


class Cifar(Source):
    """Image k of a split is image k of its batches, one after the other."""

    has_splits = True

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        members = _members(path)
        layout = next((each for each in _LAYOUTS if all(name in members for name in each[1][split])), None)
        if layout is None:
            raise UserError(
                f"--source: '{path}' lacks the {split} batches of CIFAR; it holds {', '.join(sorted(members)[:8])}"
            )
        (meta, names_key, labels_key), files = layout
        parts = [_unpickled(members[name](), f"{path}: {name}") for name in files[split]]
        try:
            self._pixels = np.concatenate(
                [np.asarray(part[b"data"], np.uint8).reshape(-1, 3, _SIDE, _SIDE) for part in parts]
            )
            self.labels = [int(label) for part in parts for label in part[labels_key]]
            if meta in members:
                names = _unpickled(members[meta](), f"{path}: {meta}")[names_key.encode()]
                self.class_names = [name.decode().replace("_", " ") for name in names]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"--source: '{path}' is not a CIFAR archive for Python: {first_line(error)}") from None
        if len(self.labels) != len(self._pixels):
            raise UserError(f"--source: '{path}' has {len(self._pixels)} images and {len(self.labels)} labels")

    @classmethod
    def is_at(cls, path: Path) -> bool:
        names = [name for _, files in _LAYOUTS for name in files["train"][:1]]
        if path.is_dir():
            return any(_is_batch(found) for name in names for found in path.rglob(name))
        return path.name.endswith((".tar.gz", ".tgz", ".tar")) and "cifar" in path.name.lower()

    def __len__(self) -> int:
        return len(self._pixels)

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        for number in numbers:
            yield np.ascontiguousarray(self._pixels[number].transpose(1, 2, 0))


def safe_unpickle(content: bytes) -> Any:
    """A pickle of arrays, lists, dictionaries, texts and numbers; texts of Python 2 are bytes.

    Raises:
        pickle.UnpicklingError: it names anything else.
    """
    return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return super().find_class(module, name)


def _unpickled(content: bytes, where: str) -> Any:
    try:
        return safe_unpickle(content)
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"--source: {where} cannot be read: {first_line(error)}") from None


def _members(path: Path) -> dict[str, Callable[[], bytes]]:
    """How to read each file of a folder or an archive, by its name without folders."""
    if path.is_dir():
        return {file.name: file.read_bytes for file in path.rglob("*") if file.is_file()}
    try:
        with tarfile.open(path) as archive:
            found = {}
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    found[Path(member.name).name] = _keeping(file.read())
            return found
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"--source: '{path}' cannot be read as an archive: {first_line(error)}") from None


def _keeping(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _is_batch(path: Path) -> bool:
    """A file without suffix that is a pickle; folders of images may be called train."""
    return path.is_file() and path.open("rb").read(1) in (b"\x80", b"(")
