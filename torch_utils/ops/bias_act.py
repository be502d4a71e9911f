"""Add a bias, apply an activation, scale, clamp: the tail of every StyleGAN2 layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.implementation import check_impl

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
    impl: str = "auto",
) -> Tensor:
    """`clamp(gain * act(x + b))`. Differentiable to any order that torch's own activations are.

    Args:
        x: any shape, any floating-point type.
        b: bias [x.shape[dim]], or None for no bias. Cast to the type of `x`.
        dim: axis of `x` that `b` runs along.
        act: a name in `ACTIVATIONS`.
        alpha: slope below zero of "lrelu"; None = the activation's own.
        gain: factor applied after the activation; None = the activation's own.
        clamp: the result is held within ±clamp; None = not clamped.
        impl: "auto" or "ref": plain torch.

    Returns:
        A tensor of the shape and type of `x`.

    Raises:
        ValueError: unknown activation, bias of the wrong shape, or negative clamp.
    """
    check_impl("bias_act", impl)
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: act='{act}' is unknown; known: {', '.join(ACTIVATIONS)}.")
    if clamp is not None and clamp < 0:
        raise ValueError(f"bias_act: clamp={clamp} is negative; give the largest magnitude to let through, or None.")
    if b is not None:
        if b.shape != (x.shape[dim],):
            raise ValueError(
                f"bias_act: the bias has shape {tuple(b.shape)}, but axis {dim} of the input {tuple(x.shape)} "
                f"needs ({x.shape[dim]},)."
            )
        along_dim = [1] * x.ndim
        along_dim[dim] = -1
        x = x + b.to(x.dtype).reshape(along_dim)

    activation = ACTIVATIONS[act]
    x = activation.fn(x, activation.alpha if alpha is None else alpha)
    gain = activation.gain if gain is None else gain
    if gain != 1:
        x = x * gain
    return x if clamp is None or _lies_within(x, clamp) else x.clamp(-clamp, clamp)


def _lies_within(x: Tensor, limit: float) -> bool:
    """Whether clamping would change nothing; only a CPU is asked: an accelerator would have to be waited for.

    Looking costs less than a clamp and its gradient, and activations hardly ever reach the limit.
    """
    if x.device.type != "cpu" or x.numel() == 0:
        return False
    least, most = torch.aminmax(x.detach())
    return bool(-limit <= least and most <= limit)
