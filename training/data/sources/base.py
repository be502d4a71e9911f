"""What a source of images gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

__all__ = ["Content", "Source"]

Content = bytes | np.ndarray  # a file's bytes, or pixels uint8 [H, W] or [H, W, 3]


class Source:
    """Images by number, in a fixed order.

    Args:
        path: where it lies; `is_at(path)` holds.
        split: "train" or "test", of sets that are published in two parts.
        fps: frames a second to take of a video; None: all.

    Attributes:
        has_splits: it is published in a training and a test part.
        labels: one for each image, a class number or a vector; None without labels.
        class_names: by class number, or None.
        captions: one text for each image, "" where there is none; None without captions.

    Raises:
        UserError: it cannot be read.
    """

    has_splits: ClassVar[bool] = False
    labels: Sequence[Any] | None = None
    class_names: Sequence[str] | None = None
    captions: Sequence[str] | None = None

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        raise NotImplementedError

    @classmethod
    def is_at(cls, path: Path) -> bool:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, number: int) -> str:
        """Of an image within the source, for messages and lists."""
        return f"image {number}"

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        """Of the images with these numbers, which ascend."""
        raise NotImplementedError
