"""MNIST and sets in its format (Fashion-MNIST, KMNIST): a folder of idx files, packed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dnnlib.errors import UserError
from training.data.sources.base import Content, Source

__all__ = ["Mnist"]

_PREFIX = {"train": "train", "test": "t10k"}
_BYTES = 8  # the idx type of unsigned bytes


class Mnist(Source):
    """28x28 grey images, padded with black to 32x32 as StyleGAN2-ADA's tool does."""

    has_splits = True
    pad = 2

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        images = _idx(_find(path, f"{_PREFIX[split]}-images-idx3-ubyte"), 3)
        self.labels = _idx(_find(path, f"{_PREFIX[split]}-labels-idx1-ubyte"), 1).tolist()
        if len(self.labels) != len(images):
            raise UserError(f"--source: '{path}' has {len(images)} images and {len(self.labels)} labels")
        self._pixels = np.pad(images, ((0, 0), (self.pad, self.pad), (self.pad, self.pad)))

    @classmethod
    def is_at(cls, path: Path) -> bool:
        return path.is_dir() and any(path.glob("train-images-idx3-ubyte*"))

    def __len__(self) -> int:
        return len(self._pixels)

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        for number in numbers:
            yield self._pixels[number]


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"--source: '{folder}' has no {name} or {name}.gz")


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an idx file: two zero bytes, the type, the number of dimensions, each one's length, the bytes."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"--source: '{path}' cannot be unpacked: {error}") from None
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if content[:4] != bytes([0, 0, _BYTES, dimensions]) or len(content) != start + math.prod(shape):
        raise UserError(f"--source: '{path}' is not a whole idx file of bytes in {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
