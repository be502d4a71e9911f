"""What a source of images gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

__all__ = ["Picture", "Source"]


@dataclass(frozen=True)
class Picture:
    """An image as the source holds it.

    name: within the source, for messages and lists.
    content: a file's bytes, or pixels uint8 [H, W] or [H, W, 3].
    """

    name: str
    content: bytes | np.ndarray


class Source:
    """Images by number, in a fixed order.

    Attributes:
        has_splits: it is published in a training and a test part.
        labels: one for each image, a class number or a vector; None without labels.
        class_names: by class number, or None.
        captions: one text for each image, "" where there is none; None without captions.
    """

    has_splits: ClassVar[bool] = False
    labels: Sequence[Any] | None = None
    class_names: Sequence[str] | None = None
    captions: Sequence[str] | None = None

    @classmethod
    def is_at(cls, path: Path) -> bool:
        raise NotImplementedError

    @classmethod
    def open(cls, path: Path, split: str, fps: float | None) -> Source:
        """
        Raises:
            UserError: it cannot be read.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        """Those of these numbers, which ascend."""
        raise NotImplementedError
