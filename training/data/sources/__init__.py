"""Where dataset_tool.py takes images from: one module for each kind of source."""

from __future__ import annotations

from pathlib import Path

from dnnlib.errors import UserError
from kd_plugin.file_kinds import what_it_is
from training.data.sources.base import Content, Source
from training.data.sources.cifar import Cifar
from training.data.sources.files import ImageFiles
from training.data.sources.lmdb import Lmdb
from training.data.sources.mnist import Mnist
from training.data.sources.video import Video

__all__ = ["KINDS", "SPLITS", "Content", "Source", "open_source"]

SPLITS = ("train", "test")
KINDS: dict[str, type[Source]] = {  # those that are told by more than being a folder or a zip come first
    "cifar": Cifar,
    "mnist": Mnist,
    "lmdb": Lmdb,
    "video": Video,
    "images": ImageFiles,
}


def open_source(path: Path, split: str = "train", fps: float | None = None) -> Source:
    """
    Args:
        path: a folder or zip of images, a CIFAR archive, MNIST's files, an LSUN lmdb, or a video.
        split: of sets that are published in two parts.
        fps: frames a second to take of a video; None: all.

    Raises:
        UserError: nothing of the kind, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"--source: '{path}' does not exist")
    kind = next((kind for kind in KINDS.values() if kind.is_at(path)), None)
    if kind is None:
        raise UserError(
            f"--source: '{path}' is none of: a folder or zip of images, a CIFAR archive, MNIST's files, an LSUN lmdb, "
            f"a video{what_it_is(path)}"
        )
    if split != "train" and not kind.has_splits:
        raise UserError(f"--split={split} is for sets that are published in two parts, such as CIFAR")
    if fps is not None and kind is not Video:
        raise UserError(f"--fps={fps:g} is for videos")
    return kind(path, split, fps)
