"""The eight figures, and painting one on a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.drawings.shapes import Canvas, Field, Rgb, box, capsule, circle, ellipse, mix, polygon, union

__all__ = ["FIGURES", "Placement", "stamp"]

INK: Rgb = (0.13, 0.10, 0.16)
BLACK: Rgb = (0.0, 0.0, 0.0)
WHITE: Rgb = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """One coloured shape of a figure. All silhouettes together get one strong outline; a detail may have its own."""

    distance: Field
    colour: Rgb
    silhouette: bool = False
    outlined: bool = False


def _body(distance: Field, colour: Rgb) -> Part:
    return Part(distance, colour, silhouette=True, outlined=True)


def _inset(distance: Field, colour: Rgb) -> Part:
    return Part(distance, colour, outlined=True)


# A figure fills about [-1, 1]^2. `colour` is its main colour, `pose` in [-1, 1] moves one thing (gaze, wings, petals).
Figure = Callable[[Field, Field, Rgb, float], list[Part]]


def _cat(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    ears = union(
        polygon(x, y, [(-0.82, 0.25), (-0.12, 0.55), (-0.72, 1.0)]),
        polygon(x, y, [(0.12, 0.55), (0.82, 0.25), (0.72, 1.0)]),
    )
    inner_ears = union(
        polygon(x, y, [(-0.68, 0.42), (-0.34, 0.55), (-0.64, 0.80)]),
        polygon(x, y, [(0.34, 0.55), (0.68, 0.42), (0.64, 0.80)]),
    )
    whiskers = union(
        *(
            capsule(x, y, (side * 0.30, -0.32 + k * 0.02), (side * 1.0, -0.30 + k * 0.16), 0.025)
            for side in (-1, 1)
            for k in (-1, 1)
        )
    )
    eyes = union(ellipse(x, y, -0.36, 0.06, 0.20, 0.24), ellipse(x, y, 0.36, 0.06, 0.20, 0.24))
    gaze = 0.07 * pose
    pupils = union(ellipse(x, y, -0.36 + gaze, 0.04, 0.09, 0.17), ellipse(x, y, 0.36 + gaze, 0.04, 0.09, 0.17))
    mouth = union(
        capsule(x, y, (0, -0.34), (0, -0.44), 0.03),
        capsule(x, y, (0, -0.46), (-0.17, -0.40), 0.035),
        capsule(x, y, (0, -0.46), (0.17, -0.40), 0.035),
    )
    return [
        _body(union(ellipse(x, y, 0, -0.08, 0.86, 0.72), ears), colour),
        Part(inner_ears, mix(colour, (0.95, 0.6, 0.6), 0.55)),
        Part(whiskers, INK),
        Part(eyes, (0.97, 0.98, 0.85)),
        Part(pupils, INK),
        Part(polygon(x, y, [(0, -0.36), (0.11, -0.22), (-0.11, -0.22)]), (0.35, 0.12, 0.18)),
        Part(mouth, INK),
    ]


def _owl(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    body = union(
        ellipse(x, y, 0, -0.12, 0.66, 0.84),
        polygon(x, y, [(-0.62, 0.30), (-0.1, 0.62), (-0.6, 0.98)]),
        polygon(x, y, [(0.1, 0.62), (0.62, 0.30), (0.6, 0.98)]),
    )
    wings = union(ellipse(x, y, -0.60, -0.20, 0.17, 0.50), ellipse(x, y, 0.60, -0.20, 0.17, 0.50))
    gaze = 0.06 * pose
    return [
        _body(
            union(ellipse(x, y, -0.24, -0.94, 0.16, 0.08), ellipse(x, y, 0.24, -0.94, 0.16, 0.08)), (0.95, 0.62, 0.1)
        ),
        _body(union(body, wings), colour),
        Part(wings, mix(colour, BLACK, 0.25)),
        Part(ellipse(x, y, 0, -0.42, 0.36, 0.44), mix(colour, WHITE, 0.5)),
        _inset(union(circle(x, y, -0.29, 0.28, 0.29), circle(x, y, 0.29, 0.28, 0.29)), (0.99, 0.99, 0.93)),
        Part(union(circle(x, y, -0.29 + gaze, 0.28, 0.14), circle(x, y, 0.29 + gaze, 0.28, 0.14)), INK),
        Part(polygon(x, y, [(0, -0.14), (0.13, 0.12), (-0.13, 0.12)]), (0.97, 0.6, 0.08)),
    ]


def _fish(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    body = ellipse(x, y, 0.14, 0, 0.76, 0.54)
    tail = polygon(x, y, [(-0.50, 0), (-1.0, 0.52), (-1.0, -0.52)])
    fin = polygon(x, y, [(0.34, 0.38), (-0.05, 0.86), (-0.34, 0.30)])
    stripes = np.maximum(body + 0.04, union(np.abs(x + 0.02) - 0.055, np.abs(x + 0.28) - 0.055))
    darker = mix(colour, BLACK, 0.22)
    return [
        _body(union(tail, fin), darker),
        _body(body, colour),
        Part(np.maximum(body, y + 0.20), mix(colour, WHITE, 0.4)),
        Part(stripes, mix(colour, BLACK, 0.3)),
        Part(circle(x, y, 0.52, 0.14, 0.17), WHITE),
        Part(circle(x, y, 0.55 + 0.03 * pose, 0.14, 0.09), INK),
        Part(capsule(x, y, (0.66, -0.16), (0.84, -0.12), 0.03), INK),
        Part(ellipse(x, y, 0.10, -0.10, 0.17, 0.11), darker),
    ]


def _butterfly(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    spread = 0.9 + 0.1 * pose
    side = np.abs(x) / spread
    diagonal = 0.7071  # the wings stand at 45 degrees
    u, v = (side - 0.52) * diagonal, (y - 0.38) * diagonal
    upper = ellipse(u + v, v - u, 0, 0, 0.62, 0.40) * spread
    u, v = (side - 0.40) * diagonal, (y + 0.42) * diagonal
    lower = ellipse(u - v, v + u, 0, 0, 0.48, 0.32) * spread
    antennae = union(
        capsule(x, y, (0, 0.45), (-0.28, 0.98), 0.035),
        capsule(x, y, (0, 0.45), (0.28, 0.98), 0.035),
    )
    spot = mix(colour, WHITE, 0.6)
    return [
        Part(antennae, INK),
        _body(union(upper, lower), colour),
        Part(lower, mix(colour, BLACK, 0.18)),
        Part(circle(side, y, 0.66, 0.52, 0.16), spot),
        Part(circle(side, y, 0.48, -0.50, 0.13), spot),
        Part(ellipse(x, y, 0, 0, 0.10, 0.62), INK),
    ]


def _house(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    lit: Rgb = (1.0, 0.95, 0.55)
    return [
        _body(box(x, y, 0.48, 0.56, 0.11, 0.30), (0.55, 0.35, 0.30)),
        _body(box(x, y, 0, -0.38, 0.66, 0.54), colour),
        _body(polygon(x, y, [(-0.94, 0.10), (0.94, 0.10), (0.0, 0.98)]), mix(colour, (0.15, 0.05, 0.1), 0.26)),
        Part(box(x, y, -0.26, -0.58, 0.18, 0.34, rounding=0.05), (0.42, 0.26, 0.16)),
        _inset(box(x, y, 0.32, -0.22, 0.17, 0.17), lit),
        _inset(circle(x, y, 0, 0.42, 0.13), lit),
    ]


def _boat(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    hull = polygon(x, y, [(-0.62, -0.82), (0.62, -0.82), (0.96, -0.30), (-0.96, -0.30)])
    return [
        Part(capsule(x, y, (-0.02, -0.3), (-0.02, 0.95), 0.045), (0.42, 0.28, 0.18)),
        _body(hull, mix(colour, BLACK, 0.15)),
        Part(np.maximum(hull, np.abs(y + 0.44) - 0.05), mix(colour, WHITE, 0.65)),
        _body(polygon(x, y, [(0.08, -0.18), (0.78, -0.18), (0.08, 0.86)]), colour),
        _body(polygon(x, y, [(-0.62, -0.18), (-0.12, -0.18), (-0.12, 0.62)]), mix(colour, WHITE, 0.3)),
    ]


def _flower(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    petals = 6
    turns = [0.3 * pose + k * math.tau / petals for k in range(petals)]
    ring = union(*(circle(x, y, 0.46 * math.cos(turn), 0.30 + 0.46 * math.sin(turn), 0.27) for turn in turns))
    leaves = union(ellipse(x, y, 0.24, -0.66, 0.22, 0.11), ellipse(x, y, -0.24, -0.74, 0.22, 0.11))
    yellow = colour[0] > 0.8 and colour[1] > 0.7 and colour[2] < 0.5
    return [
        _body(union(capsule(x, y, (0, 0.2), (0.06 * pose, -0.98), 0.06), leaves), (0.16, 0.5, 0.2)),
        _body(union(ring, circle(x, y, 0, 0.30, 0.4)), colour),
        _inset(circle(x, y, 0, 0.30, 0.24), (0.45, 0.27, 0.12) if yellow else (1.0, 0.83, 0.2)),
    ]


def _mushroom(x: Field, y: Field, colour: Rgb, pose: float) -> list[Part]:
    cap = np.maximum(ellipse(x, y, 0, 0.02, 0.92, 0.82), -y)
    dots = union(
        circle(x, y, -0.42, 0.26, 0.15),
        circle(x, y, 0.08 + 0.05 * pose, 0.52, 0.17),
        circle(x, y, 0.50, 0.20, 0.12),
    )
    return [
        _body(box(x, y, 0, -0.42, 0.28, 0.50, rounding=0.15), (0.97, 0.91, 0.78)),
        _body(cap, colour),
        Part(np.maximum(dots, cap + 0.03), (1.0, 1.0, 0.97) if min(colour) < 0.9 else (0.80, 0.55, 0.5)),
        Part(union(circle(x, y, -0.11, -0.34, 0.055), circle(x, y, 0.11, -0.34, 0.055)), INK),
    ]


FIGURES: dict[str, Figure] = {
    "cat": _cat,
    "owl": _owl,
    "fish": _fish,
    "butterfly": _butterfly,
    "house": _house,
    "boat": _boat,
    "flower": _flower,
    "mushroom": _mushroom,
}


@dataclass(frozen=True)
class Placement:
    """Where a figure stands: centre, half size, tilt in radians, whether mirrored, and its pose in [-1, 1]."""

    x: float
    y: float
    size: float
    tilt: float
    mirrored: bool
    pose: float


def stamp(canvas: Canvas, kind: str, colour: Rgb, place: Placement) -> None:
    """Paints one figure: its outline first, then part after part."""
    cos, sin = math.cos(place.tilt), math.sin(place.tilt)
    right, up = (canvas.x - place.x) / place.size, (canvas.y - place.y) / place.size
    x, y = cos * right + sin * up, cos * up - sin * right
    parts = FIGURES[kind](-x if place.mirrored else x, y, colour, place.pose)

    pixel = canvas.pixel / place.size
    line = max(0.055, 0.5 * pixel)
    canvas.paint(union(*(part.distance for part in parts if part.silhouette)) - line * 1.1, INK, pixel)
    for part in parts:
        if part.outlined:
            canvas.paint(part.distance - line * 0.5, INK, pixel)
        canvas.paint(part.distance + (line * 0.35 if part.silhouette else 0.0), part.colour, pixel)
