"""Convolution whose derivatives, of every order, are single convolutions.

torch's own second derivative is correct but slow: a gradient penalty's weight gradient runs as a convolution with a
kernel of the size of the image (3 times as long, measured), and one call a group where there are groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from torch_utils.ops import winograd

__all__ = ["convolution"]


class Geometry(NamedTuple):
    """All about a convolution but its operands. `extra`: rows and columns a transposed one appends (output_padding)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    transposed: bool
    groups: int
    extra: tuple[int, int] = (0, 0)

    def apply(self, x: Tensor, w: Tensor) -> Tensor:
        if self._is_plain(w) and winograd.gains(x, w):
            return winograd.convolve(x, w)
        return torch.convolution(
            x, w, None, self.stride, self.padding, (1, 1), self.transposed, self.extra, self.groups
        )

    def input_gradient(self, g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Of `x`, only shape and layout are read."""
        if self._is_plain(w) and winograd.gains(g, w):
            return winograd.input_gradient(g, w)
        return self._gradients(g, x, w, [True, False, False])[0]

    def weight_gradient(self, g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Of `w`, only shape and layout are read."""
        if self._is_plain(w) and winograd.gains(x, w):
            return winograd.weight_gradient(g, x)
        return self._gradients(g, x, w, [False, True, False])[1]

    def _is_plain(self, w: Tensor) -> bool:
        return self == _PLAIN and w.shape[2:] == (3, 3)

    def _gradients(self, g: Tensor, x: Tensor, w: Tensor, which: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        backward: Any = torch.ops.aten.convolution_backward
        result: tuple[Tensor, Tensor, Tensor] = backward(
            g, x, w, None, self.stride, self.padding, (1, 1), self.transposed, self.extra, self.groups, which
        )
        return result


_PLAIN = Geometry(stride=(1, 1), padding=(1, 1), transposed=False, groups=1)


def convolution(
    x: Tensor,
    w: Tensor,
    stride: int | tuple[int, int] = 1,
    padding: tuple[int, int] = (0, 0),
    transposed: bool = False,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`, or `F.conv_transpose2d` if `transposed`, without a bias. Differentiable to any order.

    Args:
        x: [N, C_in, H, W].
        w: [C_out, C_in / groups, kh, kw]; [C_in, C_out / groups, kh, kw] if `transposed`.
        stride: one number, or (y, x).
        padding: (y, x).
        transposed: the adjoint of the convolution with these settings.
        groups: as in torch.
    """
    steps = (stride, stride) if isinstance(stride, int) else stride
    result: Tensor = _Convolution.apply(x, w, Geometry(steps, padding, transposed, groups))  # type: ignore[no-untyped-call]
    return result


class _Convolution(Function):
    """Bilinear in (x, w): each gradient is the other operand against the gradient of the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry, ctx.like = geometry, _outline(x)
        # A frozen kernel (D's while G learns) needs no activations: they are not kept.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w)
        return geometry.apply(x, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _InputGradient.apply(g, w, ctx.like, ctx.geometry)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            dw = _WeightGradient.apply(g, x, _outline(w), ctx.geometry)  # type: ignore[no-untyped-call]
        return dx, dw, None


class _InputGradient(Function):
    """Bilinear in (g, w)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, like: Outline, geometry: Geometry) -> Tensor:
        ctx.geometry, ctx.like = geometry, like
        ctx.save_for_backward(g if ctx.needs_input_grad[1] else None, w)
        return geometry.input_gradient(g, like.empty(g), w)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, w = ctx.saved_tensors
        dg = dw = None
        if ctx.needs_input_grad[0]:
            dg = _Convolution.apply(dx, w, ctx.geometry)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            dw = _WeightGradient.apply(g, dx, _outline(w), ctx.geometry)  # type: ignore[no-untyped-call]
        return dg, dw, None, None


class _WeightGradient(Function):
    """Bilinear in (g, x)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, like: Outline, geometry: Geometry) -> Tensor:
        ctx.geometry, ctx.like_x = geometry, _outline(x)
        ctx.save_for_backward(g if ctx.needs_input_grad[1] else None, x if ctx.needs_input_grad[0] else None)
        return geometry.weight_gradient(g, x, like.empty(g))

    @staticmethod
    def backward(ctx: Any, dw: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, x = ctx.saved_tensors
        dg = dx = None
        if ctx.needs_input_grad[0]:
            dg = _Convolution.apply(x, dw, ctx.geometry)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            dx = _InputGradient.apply(g, dw, ctx.like_x, ctx.geometry)  # type: ignore[no-untyped-call]
        return dg, dx, None, None


class Outline(NamedTuple):
    """Shape and layout of an operand that need not be kept."""

    shape: torch.Size
    layout: torch.memory_format

    def empty(self, like: Tensor) -> Tensor:
        """Memory that nobody touches."""
        return torch.empty(self.shape, dtype=like.dtype, device=like.device, memory_format=self.layout)


def _outline(x: Tensor) -> Outline:
    """channels_last only where the tensor is that and nothing else: torch then computes in it too."""
    last = torch.channels_last
    is_last = x.is_contiguous(memory_format=last) and not x.is_contiguous()
    return Outline(x.shape, last if is_last else torch.contiguous_format)
