"""Parsing paddings, and the padding that centres a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Padding",
    "Sides",
    "downsample_padding",
    "filter_size",
    "parse_padding",
    "split_padding",
    "upsample_padding",
]

Padding: TypeAlias = int | Sequence[int]  # all sides, [x, y], or [x0, x1, y0, y1]; negative crops
Sides: TypeAlias = tuple[int, int, int, int]  # x0, x1, y0, y1


def parse_padding(padding: Padding) -> Sides:
    """(x0, x1, y0, y1) from the three ways to write a padding.

    Raises:
        ValueError: anything else.
    """
    sides = [padding] if isinstance(padding, int) else list(padding)
    if len(sides) == 1:
        sides *= 4
    elif len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4 or not all(isinstance(side, int) for side in sides):
        raise ValueError(f"padding={padding!r}; expected an integer, [x, y] or [x0, x1, y0, y1].")
    return sides[0], sides[1], sides[2], sides[3]


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of the filter in taps; None is the identity, one tap.

    Raises:
        ValueError: a filter of another number of axes than 1 or 2.
    """
    if f is None:
        return 1, 1
    if f.ndim not in (1, 2):
        raise ValueError(f"the filter has shape {tuple(f.shape)}; expected [k] or [kh, kw], see setup_filter().")
    return f.shape[-1], f.shape[0]


def upsample_padding(f: Tensor | None, up: tuple[int, int], padding: Padding) -> Sides:
    """`padding`, plus what centres the filter on the pixels it interpolates and makes H·up x W·up."""
    x0, x1, y0, y1 = parse_padding(padding)
    (width, height), (upx, upy) = filter_size(f), up
    return (
        x0 + (width + upx - 1) // 2,
        x1 + (width - upx) // 2,
        y0 + (height + upy - 1) // 2,
        y1 + (height - upy) // 2,
    )


def downsample_padding(f: Tensor | None, down: tuple[int, int], padding: Padding) -> Sides:
    """`padding`, plus what centres the filter on each block of pixels and makes H/down x W/down."""
    x0, x1, y0, y1 = parse_padding(padding)
    (width, height), (downx, downy) = filter_size(f), down
    return (
        x0 + (width - downx + 1) // 2,
        x1 + (width - downx) // 2,
        y0 + (height - downy + 1) // 2,
        y1 + (height - downy) // 2,
    )


def split_padding(x: Tensor, sides: Sides) -> tuple[Tensor, tuple[int, int]]:
    """Leave a symmetric padding to the convolution, which does it without a copy; apply any other here.

    Returns:
        The image, padded or not, and the `padding` (y, x) that torch's convolution is to be given.
    """
    x0, x1, y0, y1 = sides
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return x, (y0, x0)
    return F.pad(x, list(sides)), (0, 0)
