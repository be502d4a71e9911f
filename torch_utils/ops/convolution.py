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
    form = Form(Geometry(steps, padding, transposed, groups), Outline.of(x), Outline.of(w))
    result: Tensor = _Derivative.apply(form, "y", x, w)  # type: ignore[no-untyped-call]
    return result


class Outline(NamedTuple):
    """Shape and layout of an operand that need not be kept."""

    shape: torch.Size
    layout: torch.memory_format

    @classmethod
    def of(cls, x: Tensor) -> Outline:
        """channels_last only where the tensor is that and nothing else: torch then computes in it too."""
        is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return cls(x.shape, torch.channels_last if is_last else torch.contiguous_format)

    def empty(self, like: Tensor) -> Tensor:
        """Uninitialised memory."""
        return torch.empty(self.shape, dtype=like.dtype, device=like.device, memory_format=self.layout)


class Form(NamedTuple):
    """The trilinear form <y, convolution(x, w)>: its derivative by one of the three is a convolution of the others."""

    geometry: Geometry
    x: Outline
    w: Outline

    def derivative(self, by: str, known: dict[str, Tensor]) -> Tensor:
        if by == "y":
            return self.geometry.apply(known["x"], known["w"])
        if by == "x":
            return self.geometry.input_gradient(known["y"], self.x.empty(known["y"]), known["w"])
        return self.geometry.weight_gradient(known["y"], known["x"], self.w.empty(known["x"]))


class _Derivative(Function):
    """By one operand ("x", "w" or "y"), of the other two, which come in this order. Its own derivatives are of its
    kind: the cotangent of the result stands in the result's place."""

    @staticmethod
    def forward(ctx: Any, form: Form, by: str, first: Tensor, second: Tensor) -> Tensor:
        ctx.form, ctx.by = form, by
        # What a derivative needs is the *other* operand. So where a kernel is frozen (D's while G learns), the
        # activations are not kept.
        ctx.save_for_backward(first if ctx.needs_input_grad[3] else None, second if ctx.needs_input_grad[2] else None)
        return form.derivative(by, dict(zip(_others(by), (first, second), strict=True)))

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:  # type: ignore[override]
        names, saved = _others(ctx.by), ctx.saved_tensors
        gradients: list[Tensor | None] = []
        for place in range(2):
            if not ctx.needs_input_grad[2 + place]:
                gradients.append(None)
                continue
            known = {ctx.by: cotangent, names[1 - place]: saved[1 - place]}
            operands = (known[name] for name in _others(names[place]))
            gradients.append(_Derivative.apply(ctx.form, names[place], *operands))  # type: ignore[no-untyped-call]
        return None, None, gradients[0], gradients[1]


def _others(name: str) -> str:
    return "xwy".replace(name, "")
