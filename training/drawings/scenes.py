"""The six backgrounds. Each draws its own variation; the order of the draws is part of the procedure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from training.drawings.shapes import Canvas, Rgb, circle, ellipse, mix, polygon

__all__ = ["SCENES", "Draw", "uniform"]

# A number uniform in [0, 1): `random.Random(seed).random`, the one stream that Python promises not to change.
Draw = Callable[[], float]


def uniform(draw: Draw, low: float, high: float) -> float:
    return low + (high - low) * draw()


def _vary(draw: Draw, colour: Rgb, amount: float = 0.05) -> Rgb:
    r, g, b = (min(1, max(0, value + uniform(draw, -amount, amount))) for value in colour)
    return r, g, b


def _hill(canvas: Canvas, x: float, top: float, radius: float, colour: Rgb) -> None:
    canvas.paint(circle(canvas.x, canvas.y, x, top - radius, radius), colour)


def _hills(canvas: Canvas, far: Rgb, near: Rgb, horizon: float, draw: Draw) -> None:
    for colour, top in ((far, horizon + 0.22), (near, horizon)):
        x, radius = uniform(draw, -1, 1), uniform(draw, 1.6, 3.0)
        _hill(canvas, x, top, radius, colour)
        _hill(canvas, uniform(draw, -1, 1), top - 0.12, 2.2, mix(colour, (0, 0, 0), 0.04))


def _meadow(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    canvas.gradient(_vary(draw, (0.78, 0.92, 0.99)), _vary(draw, (0.42, 0.72, 0.96)), low=-0.3)
    cx, cy = uniform(draw, -0.8, 0.8), uniform(draw, 0.55, 0.8)
    for k in range(3):
        puff = ellipse(x, y, cx + (k - 1) * 0.22, cy + (0.06 if k == 1 else 0), 0.22, 0.13)
        canvas.paint(puff, (1, 1, 1), opacity=0.9)
    far, near = _vary(draw, (0.55, 0.80, 0.36)), _vary(draw, (0.45, 0.74, 0.28))
    _hills(canvas, far, near, uniform(draw, -0.45, -0.05), draw)
    blossoms: list[Rgb] = [(1, 1, 1), (1, 0.9, 0.3), (1, 0.6, 0.7)]
    for _ in range(7):
        fx, fy = uniform(draw, -1, 1), uniform(draw, -1, -0.45)
        canvas.paint(circle(x, y, fx, fy, 0.045), blossoms[int(draw() * 3)])


def _night(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    canvas.gradient(_vary(draw, (0.17, 0.19, 0.42)), _vary(draw, (0.04, 0.05, 0.17), 0.03))
    for _ in range(16):
        r = uniform(draw, 0.012, 0.035)
        star = circle(x, y, uniform(draw, -1, 1), uniform(draw, -0.5, 1), r)
        canvas.paint(star, (1, 1, 0.85), opacity=min(1, 2 * r / canvas.pixel + 0.2))  # smaller than a pixel: fainter
    mx, my = uniform(draw, 0.45, 0.75) * (1 if draw() < 0.5 else -1), uniform(draw, 0.5, 0.75)
    shadow = circle(x, y, mx + 0.11, my + 0.06, 0.20)
    canvas.paint(np.maximum(circle(x, y, mx, my, 0.24), -shadow), (1, 0.95, 0.7))
    cx, radius = uniform(draw, -1, 1), uniform(draw, 1.6, 3)
    top = uniform(draw, -0.75, -0.5)
    _hill(canvas, cx, top, radius, _vary(draw, (0.07, 0.10, 0.20), 0.03))


def _sunset(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    canvas.gradient(_vary(draw, (1.0, 0.62, 0.25)), _vary(draw, (0.55, 0.25, 0.50)), low=-0.45)
    horizon, sun = uniform(draw, -0.5, -0.25), uniform(draw, -0.7, 0.7)
    canvas.paint(circle(x, y, sun, horizon + 0.05, 0.62), (1, 0.75, 0.35), opacity=0.5)
    canvas.paint(circle(x, y, sun, horizon + 0.05, 0.42), (1, 0.92, 0.55))
    for _ in range(2):
        cy, cx = uniform(draw, 0.3, 0.9), uniform(draw, -0.8, 0.8)
        canvas.paint(ellipse(x, y, cx, cy, uniform(draw, 0.4, 0.7), 0.05), (1, 0.6, 0.45), opacity=0.7)
    cx, radius = uniform(draw, -1, 1), uniform(draw, 2, 4)
    _hill(canvas, cx, horizon + 0.08, radius, _vary(draw, (0.36, 0.16, 0.26)))
    canvas.paint(y - horizon + 0.12, _vary(draw, (0.26, 0.11, 0.22), 0.03))


def _sea(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    canvas.gradient(_vary(draw, (0.02, 0.22, 0.42)), _vary(draw, (0.20, 0.68, 0.78)))
    for _ in range(3):
        cx, width = uniform(draw, -1.2, 1.2), uniform(draw, 0.1, 0.2)
        ray = np.abs(x - cx - (y - 1) * 0.35) - width * (1.3 - y * 0.6)
        canvas.paint(ray, (0.75, 0.95, 0.95), softness=0.3, opacity=0.16)
    ground, cx, radius = uniform(draw, -0.85, -0.65), uniform(draw, -1, 1), uniform(draw, 2, 4)
    _hill(canvas, cx, ground, radius, _vary(draw, (0.80, 0.72, 0.48)))
    for _ in range(2):
        cx, height = uniform(draw, -0.95, 0.95), uniform(draw, 0.3, 0.6)
        for k in range(4):
            leaf = ellipse(x, y, cx + (0.05 if k % 2 else -0.05), ground + height * (k / 4) - 0.1, 0.07, height * 0.18)
            canvas.paint(leaf, _vary(draw, (0.10, 0.45, 0.28), 0.04))
    for _ in range(6):
        bx, by, r = uniform(draw, -1, 1), uniform(draw, -0.6, 0.95), uniform(draw, 0.03, 0.075)
        canvas.paint(circle(x, y, bx, by, r), (0.8, 0.96, 1), opacity=0.7)
        canvas.paint(circle(x, y, bx, by, r * 0.6), (0.4, 0.78, 0.86), opacity=0.7)


def _snow(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    canvas.gradient(_vary(draw, (0.82, 0.87, 0.93)), _vary(draw, (0.52, 0.63, 0.76)), low=-0.4)
    for _ in range(3):
        tx, height, ground = uniform(draw, -1, 1), uniform(draw, 0.5, 0.8), -0.4
        for k in range(3):
            half, foot = 0.26 - 0.05 * k, ground + k * height * 0.26
            fir = polygon(x, y, [(tx - half, foot), (tx + half, foot), (tx, foot + height * 0.5)])
            canvas.paint(fir, _vary(draw, (0.28, 0.42, 0.42), 0.03))
    _hills(canvas, (0.90, 0.93, 0.97), (0.96, 0.97, 0.99), uniform(draw, -0.5, -0.25), draw)
    for _ in range(22):
        flake = circle(x, y, uniform(draw, -1, 1), uniform(draw, -1, 1), uniform(draw, 0.025, 0.05))
        canvas.paint(flake, (1, 1, 1), opacity=0.95)


def _wall(canvas: Canvas, draw: Draw) -> None:
    x, y = canvas.x, canvas.y
    stripes, angle, phase = uniform(draw, 2.2, 4.2), uniform(draw, -0.9, 0.9), draw()
    papers: list[Rgb] = [(0.95, 0.88, 0.74), (0.80, 0.88, 0.80), (0.86, 0.80, 0.88), (0.78, 0.84, 0.92)]
    paper = _vary(draw, papers[int(draw() * 4)], 0.04)
    canvas.gradient(paper, mix(paper, (1, 1, 1), 0.1))
    t = (x * math.cos(angle) + y * math.sin(angle)) * stripes / 2 + phase
    canvas.paint((np.abs(t - np.floor(t) - 0.5) - 0.25) * 2 / stripes, mix(paper, (1, 1, 1), 0.55))
    canvas.paint(y + 0.86, (0.62, 0.45, 0.34))
    canvas.paint(np.abs(y + 0.86) - 0.03, (0.95, 0.93, 0.90))


SCENES: dict[str, Callable[[Canvas, Draw], None]] = {
    "meadow": _meadow,
    "night": _night,
    "sunset": _sunset,
    "sea": _sea,
    "snow": _snow,
    "wall": _wall,
}
