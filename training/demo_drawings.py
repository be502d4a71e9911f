"""What is in the demo set: small single-subject drawings with captions, every one computed from (seed, index).

The same procedure makes the 100 pictures of `--data=demo` (seed 0), the drawings that the demo teacher is trained on
and those it is tested on, which differ by the seed alone. A drawing is one of SUBJECTS in one of COLOURS, which
`draw` cycles through with the index, so that any run of 36 drawings holds every pair once; background, place, size,
tilt, shade and direction are left to chance.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["COLOURS", "SUBJECTS", "Drawing", "draw", "write_demo_set"]

Rgb = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Rgb] = {
    "red": (214, 48, 49),
    "yellow": (246, 194, 44),
    "green": (58, 157, 82),
    "blue": (48, 110, 204),
    "purple": (126, 70, 178),
    "pink": (244, 128, 178),
}
# Sky and ground, pale enough that the subject's colour is the only strong one.
BACKGROUNDS: list[tuple[Rgb, Rgb]] = [
    ((255, 246, 224), (240, 219, 178)),  # cream and sand
    ((222, 241, 252), (180, 213, 232)),  # sky and water
    ((230, 246, 228), (188, 221, 184)),  # mint and meadow
    ((238, 234, 248), (206, 200, 226)),  # lilac and heath
]
WHITE, INK, WOOD, LEAF, CREAM, AMBER = (
    (255, 255, 255),
    (38, 36, 48),
    (126, 86, 56),
    (84, 140, 72),
    (244, 224, 188),
    (206, 126, 40),
)
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Drawing:
    """One picture and what it shows. `label` is the position of `subject` in SUBJECTS."""

    image: Image.Image
    subject: str
    colour: str

    @property
    def label(self) -> int:
        return list(SUBJECTS).index(self.subject)

    @property
    def caption(self) -> str:
        return f"a drawing of a {self.colour} {self.subject}"


class Pen:
    """Fills shapes given in the subject's own frame: x and y in [-1, 1], y down, the centre at (0, 0).

    Args:
        canvas: RGB image to draw on, square.
        centre, radius: where the frame lies on the canvas, as fractions of its side.
        tilt: rotation in radians, clockwise on the screen.
        flip: whether left and right are exchanged.
    """

    def __init__(self, canvas: Image.Image, centre: Point, radius: float, tilt: float, flip: bool) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._side = canvas.width
        self._centre = centre
        self._mirror = -1.0 if flip else 1.0
        self._cos, self._sin = radius * math.cos(tilt), radius * math.sin(tilt)

    def polygon(self, points: Sequence[Point], fill: Rgb) -> None:
        self._draw.polygon([self._place(x * self._mirror, y) for x, y in points], fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb, arc: tuple[float, float] = (0, 360)) -> None:
        """An ellipse, or with `arc` (degrees, clockwise from the right) the segment that its chord cuts off."""
        angles = (math.radians(arc[0] + (arc[1] - arc[0]) * k / 40) for k in range(41))
        self.polygon([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def _place(self, x: float, y: float) -> Point:
        u = self._centre[0] + self._cos * x - self._sin * y
        v = self._centre[1] + self._sin * x + self._cos * y
        return u * self._side, v * self._side


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`share` of b and the rest of a."""
    r, g, b_ = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _fish(pen: Pen, colour: Rgb) -> None:
    fin = _mix(colour, INK, 0.3)
    pen.polygon([(-0.42, 0), (-1.0, -0.48), (-0.86, 0), (-1.0, 0.48)], fin)
    pen.polygon([(-0.3, -0.3), (0.02, -0.76), (0.38, -0.3)], fin)
    pen.ellipse(0.14, 0, 0.74, 0.5, colour)
    pen.ellipse(0.14, 0.04, 0.72, 0.44, _mix(colour, WHITE, 0.4), arc=(25, 155))
    pen.ellipse(0.5, -0.12, 0.17, 0.17, WHITE)
    pen.ellipse(0.54, -0.11, 0.09, 0.09, INK)


def _house(pen: Pen, colour: Rgb) -> None:
    pen.box(0.3, -0.86, 0.52, -0.3, WOOD)
    pen.box(-0.64, -0.16, 0.64, 0.82, colour)
    pen.polygon([(-0.88, -0.1), (0, -0.92), (0.88, -0.1)], _mix(colour, INK, 0.45))
    pen.box(-0.42, 0.2, -0.04, 0.82, WOOD)
    pen.box(0.16, 0.14, 0.48, 0.46, CREAM)


def _tree(pen: Pen, colour: Rgb) -> None:
    pen.box(-0.14, 0.1, 0.14, 0.9, WOOD)
    for x, y, radius in ((-0.38, 0.0, 0.42), (0.38, 0.0, 0.42), (0.0, -0.44, 0.5), (0.0, 0.04, 0.4)):
        pen.ellipse(x, y, radius, radius, colour)
    pen.ellipse(-0.14, -0.54, 0.22, 0.2, _mix(colour, WHITE, 0.35))


def _flower(pen: Pen, colour: Rgb) -> None:
    pen.box(-0.06, 0.0, 0.06, 0.96, LEAF)
    pen.polygon([(0, 0.84), (0.46, 0.44), (0.32, 0.8)], LEAF)
    pen.polygon([(0, 0.94), (-0.46, 0.56), (-0.32, 0.9)], LEAF)
    for k in range(5):
        angle = math.radians(72 * k - 90)
        pen.ellipse(0.4 * math.cos(angle), -0.3 + 0.4 * math.sin(angle), 0.29, 0.29, colour)
    pen.ellipse(0, -0.3, 0.22, 0.22, AMBER)


def _boat(pen: Pen, colour: Rgb) -> None:
    pen.box(-0.05, -0.92, 0.05, 0.4, WOOD)
    pen.polygon([(0.1, -0.86), (0.1, 0.26), (0.82, 0.26)], colour)
    pen.polygon([(-0.1, -0.66), (-0.1, 0.26), (-0.62, 0.26)], _mix(colour, WHITE, 0.4))
    pen.polygon([(-0.9, 0.38), (0.94, 0.38), (0.6, 0.82), (-0.6, 0.82)], _mix(colour, INK, 0.3))


def _mushroom(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-0.2, 0), (0.2, 0), (0.3, 0.88), (-0.3, 0.88)], CREAM)
    pen.polygon([(-0.2, 0), (0.04, 0), (0.0, 0.88), (-0.3, 0.88)], _mix(CREAM, WOOD, 0.3))
    pen.ellipse(0, 0.14, 0.88, 0.94, colour, arc=(180, 360))
    for x, y, radius in ((-0.4, -0.16, 0.14), (0.06, -0.46, 0.16), (0.46, -0.12, 0.13)):
        pen.ellipse(x, y, radius, radius, WHITE)


SUBJECTS: dict[str, Callable[[Pen, Rgb], None]] = {
    "fish": _fish,
    "house": _house,
    "tree": _tree,
    "flower": _flower,
    "boat": _boat,
    "mushroom": _mushroom,
}


def draw(index: int, seed: int = 0, size: int = 32) -> Drawing:
    """Drawing number `index` of the endless series `seed`, `size` pixels square. Equal arguments, equal pixels."""
    subjects, colours = list(SUBJECTS), list(COLOURS)
    subject = subjects[index % len(subjects)]
    colour = colours[index // len(subjects) % len(colours)]
    rng = np.random.Generator(np.random.PCG64([seed, index]))

    side = size * SUPERSAMPLING
    sky, ground = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = Image.new("RGB", (side, side), sky)
    horizon = rng.uniform(0.66, 0.78)
    ImageDraw.Draw(canvas).rectangle((0, round(horizon * side), side, side), fill=ground)

    shade = rng.uniform(-0.1, 0.15)
    paint = _mix(COLOURS[colour], WHITE if shade > 0 else INK, abs(shade))
    pen = Pen(
        canvas,
        centre=(rng.uniform(0.44, 0.56), rng.uniform(0.46, 0.54)),
        radius=rng.uniform(0.34, 0.42),
        tilt=math.radians(rng.uniform(-9, 9)),
        flip=bool(rng.integers(2)),
    )
    SUBJECTS[subject](pen, paint)
    return Drawing(canvas.reduce(SUPERSAMPLING), subject, colour)


def write_demo_set(path: str | os.PathLike[str], count: int = 100, size: int = 32, seed: int = 0) -> None:
    """Write `count` drawings as an uncompressed zip in StyleGAN's layout. Equal arguments, equal bytes.

    dataset.json holds `labels` ([[file, class], ...], the class is the subject) and two keys of ours that StyleGAN's
    reader ignores: `class_names` (position = class) and `captions` ([[file, caption], ...]). The file appears
    under its name only when it is complete.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    labels: list[tuple[str, int]] = []
    captions: list[tuple[str, str]] = []
    try:
        with zipfile.ZipFile(partial, "w", compression=zipfile.ZIP_STORED) as archive:
            for index in range(count):
                drawing = draw(index, seed, size)
                name = f"{index // 1000:05d}/img{index:08d}.png"
                encoded = io.BytesIO()
                drawing.image.save(encoded, format="PNG")
                _add(archive, name, encoded.getvalue())
                labels.append((name, drawing.label))
                captions.append((name, drawing.caption))
            meta = {"labels": labels, "class_names": list(SUBJECTS), "captions": captions}
            _add(archive, "dataset.json", json.dumps(meta, indent=0).encode())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store one member under a fixed date: `writestr(name, ...)` would stamp it with the clock."""
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
