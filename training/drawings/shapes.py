"""Shapes as signed distances, and a canvas to paint them on with soft edges: one procedure for every picture size.

Coordinates are [-1, 1] in both directions, y up. A distance is negative inside the shape, in units of the coordinates;
those of ellipses are approximate away from the edge.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Field", "Point", "Rgb", "box", "capsule", "circle", "ellipse", "mix", "polygon", "union"]

Field = NDArray[np.float64]  # [R, R], one number a pixel
Rgb = tuple[float, float, float]  # each in [0, 1]
Point = tuple[float, float]

# Pixel values are rounded to 8 bits a hair above the half, so that a value which is mathematically k + 1/2 rounds
# the same way on every machine.
_ROUND = 0.5 + 1e-6


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`share` of the second colour and the rest of the first."""
    r, g, b = (p + (q - p) * share for p, q in zip(first, second, strict=True))
    return r, g, b


def circle(x: Field, y: Field, cx: float, cy: float, r: float) -> Field:
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - r


def ellipse(x: Field, y: Field, cx: float, cy: float, a: float, b: float) -> Field:
    """Half axes a (along x) and b; the distance is of first order in the gradient."""
    u, v = (x - cx) / a, (y - cy) / b
    level = np.sqrt(u * u + v * v)
    return level * (level - 1) / (np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-9)


def box(x: Field, y: Field, cx: float, cy: float, a: float, b: float, rounding: float = 0.0) -> Field:
    """Half sides a and b, corners rounded with the radius `rounding`."""
    across, up = np.abs(x - cx) - a + rounding, np.abs(y - cy) - b + rounding
    outside = np.sqrt(np.maximum(across, 0) ** 2 + np.maximum(up, 0) ** 2)
    return outside + np.minimum(np.maximum(across, up), 0) - rounding


def capsule(x: Field, y: Field, start: Point, end: Point, r: float) -> Field:
    """A stroke of the radius r."""
    (ax, ay), dx, dy = start, end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2) - r


def polygon(x: Field, y: Field, corners: Sequence[Point]) -> Field:
    """Convex, corners counter-clockwise; outside, near a corner, the distance to the nearest side's line."""
    sides = []
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2)
        sides.append(((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length)
    return functools.reduce(np.maximum, sides)


def union(*distances: Field) -> Field:
    return functools.reduce(np.minimum, distances)


class Canvas:
    """A square picture in the making.

    Attributes:
        x, y: [R, R] coordinates of the pixels' centres.
        pixel: side of a pixel.
    """

    def __init__(self, size: int) -> None:
        self.pixel = 2.0 / size
        centres = (np.arange(size) + 0.5) * self.pixel - 1
        self.x: Field = np.broadcast_to(centres[None, :], (size, size))
        self.y: Field = np.broadcast_to(-centres[:, None], (size, size))
        self._image = np.zeros((3, size, size))

    def paint(self, distance: Field, colour: Rgb, softness: float | None = None, opacity: float = 1.0) -> None:
        """Lays a shape over the picture; its edge is `softness` wide (a pixel, if not given)."""
        cover = np.clip(0.5 - distance / (softness or self.pixel), 0, 1) * opacity
        for channel, value in zip(self._image, colour, strict=True):
            channel += cover * (value - channel)

    def gradient(self, bottom: Rgb, top: Rgb, low: float = -1.0, high: float = 1.0) -> None:
        """Fills the picture from `bottom` (at y = low and below) to `top` (at y = high and above)."""
        share = np.clip((self.y - low) / (high - low), 0, 1)
        for channel, start, end in zip(self._image, bottom, top, strict=True):
            channel[...] = start + (end - start) * share

    def pixels(self) -> NDArray[np.uint8]:
        """[3, R, R]."""
        return (np.clip(self._image, 0, 1) * 255 + _ROUND).astype(np.uint8)
