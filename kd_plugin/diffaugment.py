"""DiffAugment: three cheap augmentations at fixed strength, applied to reals and fakes alike.

Source: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 4. The ranges of the
draws and their order in torch's generator are those of the authors' PyTorch code, so that a seed gives the same images.

Every operation takes its random numbers as arguments; only `DiffAugment` draws. All of them are twice differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_plugin.errors import KDError, nearest

__all__ = ["ALL", "NONE", "POLICIES", "DiffAugment", "color", "cutout", "translation"]

TRANSLATION_RATIO = 1 / 8  # largest shift, as a part of the side
NONE = "none"
ALL = "color,translation,cutout"
CUTOUT_RATIO = 1 / 2  # side of the hole, as a part of the image's


class DiffAugment:
    """Images [N,C,H,W] -> images of the same shape, each with its own draws: from torch's global generator, unless
    another one is given.

    Args:
        policy: comma-separated words of `POLICIES`, applied in the order given; "none" augments nothing.
        given_by: what it was given by, for messages.

    Raises:
        KDError: a word is not in `POLICIES`.
    """

    def __init__(self, policy: str = ALL, given_by: str = "policy") -> None:
        self.policy = policy
        self._steps = []
        for word in [] if policy == NONE else [part.strip() for part in policy.split(",")]:
            if word not in POLICIES:
                raise KDError(f"{given_by}: unknown policy '{word}'{nearest(word, [*POLICIES, NONE])}")
            self._steps.append(POLICIES[word])

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for step in self._steps:
            images = step.apply(images, *step.draw(images, generator))
        return images

    def __repr__(self) -> str:
        return f"DiffAugment({self.policy!r})"


def color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness, saturation and contrast, in this order.

    Args:
        images: [N,C,H,W].
        brightness: [N,1,1,1] in [0,1]; an offset of -1/2 to 1/2.
        saturation: likewise; a factor of 0 to 2 on each pixel's distance to its own grey, the mean of its channels.
        contrast: likewise; a factor of 1/2 to 3/2 on each value's distance to the mean of the image.
    """
    shift, s, c = brightness - 0.5, saturation * 2, contrast + 0.5
    # Saturation keeps each pixel's grey and hence the image's mean, so the three steps collapse into one affine map:
    # two passes over the pixels instead of six.
    grey = images.mean(1, keepdim=True)  # [N,1,H,W]
    mean = grey.mean((2, 3), keepdim=True)  # [N,1,1,1]
    return images * (s * c) + (grey * (c - s * c) + (mean * (1 - c) + shift))


def translation(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Moves each image up by `rows` and left by `columns` pixels; what comes in is zero.

    Args:
        images: [N,C,H,W].
        rows, columns: integers of any shape with N elements, at most 1/8 of the side in size (`TRANSLATION_RATIO`).
    """
    shifted: Tensor = _Shift.apply(images, rows.flatten(), columns.flatten())  # type: ignore[no-untyped-call]
    return shifted


class _Shift(torch.autograd.Function):
    """Shift with zero fill. Its transpose is the shift back, so that no order of derivative ever needs a scatter."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        height, width = images.shape[2:]
        reach_y, reach_x = _part(height, TRANSLATION_RATIO), _part(width, TRANSLATION_RATIO)
        padded = torch.nn.functional.pad(images, (reach_x, reach_x, reach_y, reach_y))
        # A view of all windows of the padded image; indexing it copies the wanted one per image and nothing else.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2 reach_y + 1, 2 reach_x + 1, H, W]
        each = torch.arange(len(images), device=images.device)
        return windows[each, :, rows + reach_y, columns + reach_x]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        return _Shift.apply(grad, -rows, -columns), None, None  # type: ignore[no-untyped-call]


def cutout(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Zeroes a rectangle of half the sides; parts of it may fall outside.

    Args:
        images: [N,C,H,W].
        rows, columns: integers with N elements: the row and the column where the rectangle's middle lies.
    """

    def inside(centre: Tensor, length: int) -> Tensor:  # [N, length]
        side = _part(length, CUTOUT_RATIO)
        offset = torch.arange(length, device=images.device) - centre.view(-1, 1) + side // 2
        return (offset >= 0) & (offset < side)

    height, width = images.shape[2:]
    hole = inside(rows, height)[:, None, :, None] & inside(columns, width)[:, None, None, :]  # [N,1,H,W]
    return images.masked_fill(hole, 0)


def _part(length: int, ratio: float) -> int:
    """`ratio` of `length` in whole pixels, halves rounded up."""
    return int(length * ratio + 0.5)


def _draw_color(images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
    like: dict[str, Any] = {"dtype": images.dtype, "device": images.device, "generator": generator}
    return [torch.rand(len(images), 1, 1, 1, **like) for _ in range(3)]


def _draw_translation(images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
    reaches = [_part(length, TRANSLATION_RATIO) for length in images.shape[2:]]
    return [_integers(-reach, reach + 1, images, generator) for reach in reaches]


def _draw_cutout(images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
    # An even hole is centred between pixels: one place more than there are pixels.
    places = [length + 1 - _part(length, CUTOUT_RATIO) % 2 for length in images.shape[2:]]
    return [_integers(0, place, images, generator) for place in places]


def _integers(low: int, high: int, images: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randint(low, high, (len(images), 1, 1), device=images.device, generator=generator)


class Step(NamedTuple):
    """One word of a policy: what it draws for a batch, and what it does with the draws."""

    draw: Callable[[Tensor, torch.Generator | None], list[Tensor]]
    apply: Callable[..., Tensor]


POLICIES = {
    "color": Step(_draw_color, color),
    "translation": Step(_draw_translation, translation),
    "cutout": Step(_draw_cutout, cutout),
}
