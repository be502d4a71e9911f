"""One drawing of the family: its attributes and the positions of its figures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.drawings.figures import FIGURES, Placement, stamp
from training.drawings.scenes import SCENES as _SCENES
from training.drawings.scenes import Draw, uniform
from training.drawings.shapes import Canvas, Rgb

__all__ = ["COLOURS", "COUNTS", "KINDS", "SCENES", "SERIES_LENGTH", "SIZES", "Attributes", "Drawing", "draw"]

_RGB: dict[str, Rgb] = {
    "red": (0.86, 0.13, 0.14),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.99, 0.86, 0.16),
    "green": (0.20, 0.66, 0.24),
    "blue": (0.14, 0.38, 0.88),
    "purple": (0.53, 0.22, 0.73),
    "pink": (0.98, 0.55, 0.74),
    "white": (0.96, 0.96, 0.95),
}
KINDS = tuple(FIGURES)
COLOURS = tuple(_RGB)
SCENES = tuple(_SCENES)
COUNTS = ("one", "two", "three")
SIZES = ("small", "big")

SERIES_LENGTH = 10**7  # drawings of different series never share a seed


@dataclass(frozen=True)
class Attributes:
    """What a caption can say: members of KINDS, COLOURS, SCENES, COUNTS, and of SIZES where there is one figure."""

    kind: str
    colour: str
    scene: str
    count: str
    size: str | None


@dataclass(frozen=True)
class Drawing:
    pixels: NDArray[np.uint8]  # [3, R, R]
    attributes: Attributes


def draw(number: int, series: int = 0, size: int = 32) -> Drawing:
    """Drawing `number` (below SERIES_LENGTH) of an endless series, `size` pixels square.

    Equal arguments give equal pixels: everything is drawn from `random.Random(seed).random()` and computed in float64.
    About 1 ms at 32 pixels.
    """
    rng = random.Random(series * SERIES_LENGTH + number).random
    attributes = _sample(rng)
    canvas = Canvas(size)
    _SCENES[attributes.scene](canvas, rng)
    for x, y, half in _positions(attributes, rng):
        lightness = uniform(rng, -0.06, 0.06)
        colour = _shade(_RGB[attributes.colour], lightness, rng)
        place = Placement(x, y, half, uniform(rng, -0.22, 0.22), rng() < 0.5, uniform(rng, -1, 1))
        stamp(canvas, attributes.kind, colour, place)
    return Drawing(canvas.pixels(), attributes)


def _sample(rng: Draw) -> Attributes:
    """Kind, colour and scene are uniform; half of the drawings show one figure, a quarter two, a quarter three."""

    def pick(names: Sequence[str]) -> str:
        return names[int(rng() * len(names))]

    kind, colour, scene = pick(KINDS), pick(COLOURS), pick(SCENES)
    share = rng()
    count = "one" if share < 0.5 else "two" if share < 0.75 else "three"
    return Attributes(kind, colour, scene, count, pick(SIZES) if count == "one" else None)


def _positions(attributes: Attributes, rng: Draw) -> list[tuple[float, float, float]]:
    """Centre and half size of each figure, so that they neither overlap nor leave the picture."""

    def between(low: float, high: float) -> float:
        return uniform(rng, low, high)

    if attributes.count == "one":
        half = between(0.34, 0.44) if attributes.size == "small" else between(0.68, 0.80)
        room = 0.95 - half
        return [(between(-room, room), between(-room, room) * 0.8, half)]
    if attributes.count == "two":
        half, apart, slope = between(0.38, 0.46), between(0.44, 0.52), between(-0.45, 0.45)
        side = 1 if rng() < 0.5 else -1
        return [
            (end * apart * side, -end * slope * 0.8 + between(-0.1, 0.1), half * between(0.92, 1.05)) for end in (-1, 1)
        ]
    half, up = between(0.30, 0.37), 1 if rng() < 0.5 else -1
    ox, oy = between(-0.08, 0.08), between(-0.08, 0.08)
    return [
        (-0.58 + ox, -0.30 * up + oy + between(-0.1, 0.1), half),
        (0.58 + ox, -0.30 * up + oy + between(-0.1, 0.1), half * between(0.95, 1.05)),
        (ox + between(-0.1, 0.1), 0.42 * up + oy, half * between(0.95, 1.05)),
    ]


def _shade(colour: Rgb, lightness: float, rng: Draw) -> Rgb:
    r, g, b = (min(1, max(0, value + lightness + uniform(rng, -0.035, 0.035))) for value in colour)
    return r, g, b
