"""The range of a host's images: converted to what teachers take, and checked."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kd_plugin.errors import KDError

__all__ = ["STANDARD", "ImageRange"]

STANDARD = (-1.0, 1.0)

_BATCHES = 8  # of real images, that are looked at
_SLACK = 0.05  # of half the range: resizing overshoots
_FLAT = 0.1  # half ranges between the darkest and the brightest value
_AUGMENTED = 8.0  # half ranges; colours are seldom moved further


class ImageRange:
    """
    Args:
        low, high: black and white.

    Raises:
        KDError: not two numbers in this order.
    """

    def __init__(self, low: float, high: float) -> None:
        if not low < high:
            raise KDError(f"image_range=({low}, {high}): give the values of black and white, such as (0, 1)")
        self.low, self.high = float(low), float(high)
        self._watched = 0
        self._extremes: Tensor | None = None

    @classmethod
    def of(cls, given: tuple[float, float]) -> ImageRange:
        pair = given if isinstance(given, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(value, int | float) for value in pair):
            raise KDError(f"image_range={given!r}: give the values of black and white, such as (0, 1)")
        return cls(*pair)

    def standard(self, images: Tensor) -> Tensor:
        """The images with black at -1 and white at 1."""
        if (self.low, self.high) == STANDARD:
            return images
        return (images.float() - self.low) * (2 / (self.high - self.low)) - 1

    def from_standard(self, images: Tensor) -> Tensor:
        """The inverse of `standard`."""
        if (self.low, self.high) == STANDARD:
            return images
        return (images + 1) * ((self.high - self.low) / 2) + self.low

    def watch(self, real: Tensor, augmented: bool) -> None:
        """Warns once if real images are in another range: far outside, never darker than the middle, or hardly varying.

        Looks at the first batches and waits for an accelerator twice. Generated images may be anywhere.
        """
        if self._watched == _BATCHES or not len(real):
            return
        self._watched += 1
        low, high = torch.aminmax(real.detach().float())
        extremes = torch.stack([low, high])
        if self._extremes is not None:
            extremes = torch.stack([torch.minimum(low, self._extremes[0]), torch.maximum(high, self._extremes[1])])
        self._extremes = extremes
        if self._watched in (1, _BATCHES):
            least, most = extremes.tolist()
            if self._is_wrong(least, most, augmented):
                self._watched = _BATCHES
                warnings.warn(_advice(least, most, self.low, self.high), stacklevel=2)

    def _is_wrong(self, least: float, most: float, augmented: bool) -> bool:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        limit = half * (_AUGMENTED if augmented else 1 + _SLACK)
        outside = least < middle - limit or most > middle + limit
        return outside or (self._watched == _BATCHES and (least >= middle or most - least < _FLAT * half))


def _advice(least: float, most: float, low: float, high: float) -> str:
    known = ((-1, 1), (0, 1), (0, 255))
    fits = ((a, b) for a, b in known if a - _SLACK <= least and most <= b + _SLACK and (a, b) != (low, high))
    meant = next((pair for pair in sorted(fits, key=lambda pair: pair[1] - pair[0])), None)
    advice = f"image_range=({meant[0]}, {meant[1]})" if meant else "image_range=(black, white)"
    return (
        f"real images have values from {least:.3g} to {most:.3g}, where [{low:g}, {high:g}] is expected, so the "
        f"teacher sees other images than D; pass {advice} to attach()"
    )
