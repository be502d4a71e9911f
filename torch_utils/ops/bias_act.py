"""Add a bias, apply an activation, scale, clamp: the tail of every StyleGAN2 layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from torch_utils.ops.implementation import kernels_for

__all__ = ["ACTIVATIONS", "Activation", "bias_act"]


@dataclass(frozen=True)
class Activation:
    """`fn(x, alpha)` with the constants a layer uses unless told otherwise."""

    fn: Callable[[Tensor, float], Tensor]
    alpha: float = 0.0  # slope below zero; means something to lrelu only
    gain: float = 1.0  # restores the second moment of N(0,1) input, as He initialisation does


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: F.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(F.leaky_relu, alpha=0.2, gain=math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: F.elu(x)),
    "selu": Activation(lambda x, alpha: F.selu(x)),
    "softplus": Activation(lambda x, alpha: F.softplus(x)),
    "swish": Activation(lambda x, alpha: torch.sigmoid(x) * x, gain=math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    scale: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """`clamp(gain * act(scale * x + b))`. Differentiable to any order that torch's own activations are.

    Args:
        x: any shape, any floating-point type.
        b: bias [x.shape[dim]], or None for no bias. Cast to the type of `x`.
        dim: axis of `x` that `b` runs along.
        act: a name in `ACTIVATIONS`.
        alpha: slope below zero of "lrelu"; None = the activation's own.
        gain: factor applied after the activation; None = the activation's own.
        clamp: the result is held within ±clamp; None = not clamped.
        scale: factor on `x`, above 0.
        impl: "ref" is plain torch. "auto" does linear, relu and lrelu in fewer passes over memory, on a GPU in one, and
            keeps only the result for the derivatives. "cuda" is that one pass, or an error.

    Returns:
        A tensor of the shape and type of `x`.

    Raises:
        ValueError: unknown activation, bias of the wrong shape, or negative clamp.
        KernelsUnavailable: `impl="cuda"` if there are none.
    """
    compiled = kernels_for("bias_act", impl, x)
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: act='{act}' is unknown; known: {', '.join(ACTIVATIONS)}.")
    if clamp is not None and clamp < 0:
        raise ValueError(f"bias_act: clamp={clamp} is negative; give the largest magnitude to let through, or None.")
    if b is not None and b.shape != (x.shape[dim],):
        raise ValueError(
            f"bias_act: the bias has shape {tuple(b.shape)}, but axis {dim} of the input {tuple(x.shape)} "
            f"needs ({x.shape[dim]},)."
        )
    activation = ACTIVATIONS[act]
    alpha = activation.alpha if alpha is None else alpha
    gain = activation.gain if gain is None else gain
    slope = _SLOPES[act](alpha) if act in _SLOPES else None
    if impl == "ref" or slope is None or slope < 0 or gain <= 0 or scale <= 0:
        return _reference(x, b, dim, activation, alpha, gain, clamp, scale)
    result: Tensor = _Kinked.apply(x, b, dim, Kink(slope, gain, clamp, scale, compiled))  # type: ignore[no-untyped-call]
    return result


def _along(b: Tensor, x: Tensor, dim: int) -> Tensor:
    """`b` as something that broadcasts along axis `dim` of `x`, in its type."""
    shape = [1] * x.ndim
    shape[dim] = -1
    return b.to(x.dtype).reshape(shape)


def _reference(
    x: Tensor,
    b: Tensor | None,
    dim: int,
    activation: Activation,
    alpha: float,
    gain: float,
    clamp: float | None,
    scale: float,
) -> Tensor:
    if scale != 1:
        x = x * scale
    if b is not None:
        x = x + _along(b, x, dim)
    x = activation.fn(x, alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


# Activations of one kink at zero: the slope below it, from alpha. Their result says on which side of it the input was.
_SLOPES: dict[str, Callable[[float], float]] = {
    "linear": lambda alpha: 1.0,
    "relu": lambda alpha: 0.0,
    "lrelu": lambda alpha: alpha,
}


class Kink(NamedTuple):
    """x -> clamp(gain * (v if v > 0 else slope * v)) with v = scale * x + b."""

    slope: float
    gain: float
    clamp: float | None
    scale: float
    kernels: Any  # the CUDA kernels, or None

    def apply(self, x: Tensor, b: Tensor | None, dim: int) -> Tensor:
        factor = self.scale * self.gain
        if self.kernels is not None and (inner := _inner(x, dim)) is not None:
            y: Tensor = self.kernels.kink(x, b, inner, factor, self.gain, self.slope, self.clamp)
            return y
        # gain goes into scale and bias, as act(gain * v) = gain * act(v) here; then all is done in place.
        y = x * factor if b is None else torch.add(_along(b, x, dim) * self.gain, x, alpha=factor)
        if self.slope != 1:
            F.leaky_relu_(y, self.slope)
        if self.clamp is not None:
            y.clamp_(-self.clamp, self.clamp)
        return y

    def gradient(self, g: Tensor, y: Tensor) -> Tensor:
        factor = self.scale * self.gain
        if self.kernels is not None and _inner(y, 0) is not None:
            dx: Tensor = self.kernels.kink_gradient(_like(g, y), y, factor, self.slope, self.clamp)
            return dx
        if self.clamp is not None:
            g = torch.ops.aten.hardtanh_backward(g, y, -self.clamp, self.clamp)
        if self.slope == 1:
            return g * factor
        dx = torch.ops.aten.leaky_relu_backward(g, y, self.slope, True)
        return dx.mul_(factor)


def _inner(x: Tensor, dim: int) -> int | None:
    """How many elements of a channel (an index of axis `dim`) lie side by side; None if `x` is not dense."""
    dim %= x.ndim
    if x.is_contiguous():
        return math.prod(x.shape[dim + 1 :])
    if x.ndim == 4 and dim in (0, 1) and x.is_contiguous(memory_format=torch.channels_last):
        return 1 if dim == 1 else math.prod(x.shape[1:])
    return None


def _like(g: Tensor, y: Tensor) -> Tensor:
    """`g` in the type and layout of `y`."""
    return g if g.dtype == y.dtype and g.stride() == y.stride() else torch.empty_like(y).copy_(g)


class _Kinked(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor | None, dim: int, kink: Kink) -> Tensor:
        y = kink.apply(x, b, dim)
        ctx.dim, ctx.kink, ctx.bias_dtype = dim, kink, None if b is None else b.dtype
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        dx = _KinkedGradient.apply(g, y, ctx.kink)  # type: ignore[no-untyped-call]
        db = None
        if ctx.needs_input_grad[1]:
            dim = ctx.dim % g.ndim
            db = dx.sum([axis for axis in range(g.ndim) if axis != dim]).to(ctx.bias_dtype) / ctx.kink.scale
        return dx if ctx.needs_input_grad[0] else None, db, None, None


class _KinkedGradient(Function):
    """Linear in g, and constant in y wherever it has a derivative."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, kink: Kink) -> Tensor:
        ctx.kink = kink
        ctx.save_for_backward(y)
        return kink.gradient(g, y)

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return _KinkedGradient.apply(gg, y, ctx.kink), None, None  # type: ignore[no-untyped-call]
