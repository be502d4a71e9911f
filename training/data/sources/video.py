"""The frames of a video, through ffmpeg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from kd_plugin.errors import first_line
from training.data.sources.base import Content, Source

__all__ = ["Video"]

_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


class Video(Source):
    """Frame k is the k-th one that ffmpeg gives at the wanted rate; it is read twice, once to be counted."""

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        self._path = path
        self._rate = [] if fps is None else ["-vf", f"fps={fps:g}"]
        self._count = sum(1 for _ in self._frames())
        if not self._count:
            raise UserError(f"--source: ffmpeg finds no frame in '{path}'")

    @classmethod
    def is_at(cls, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in _SUFFIXES

    def __len__(self) -> int:
        return self._count

    def name(self, number: int) -> str:
        return f"frame {number}"

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        wanted = set(numbers)
        for number, frame in enumerate(self._frames()):
            if number in wanted:
                yield frame

    def _frames(self) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3]."""
        try:
            import imageio_ffmpeg
        except ImportError:
            raise UserError(
                "--source: reading a video needs imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg"
            ) from None
        frames: Any = imageio_ffmpeg.read_frames(str(self._path), output_params=self._rate)
        try:
            width, height = next(frames)["size"]
            for frame in frames:
                yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
        except (OSError, RuntimeError, StopIteration) as error:
            raise UserError(f"--source: '{self._path}' cannot be read as a video: {first_line(error)}") from None
