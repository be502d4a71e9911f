"""Bilinear resampling at given places, differentiable to any order in the image.

torch has no second derivative of its own `grid_sample` before 2.13 or so: "derivative for
aten::grid_sampler_2d_backward is not implemented". R1 through ADA needs it, and it is simple: the operation is linear
in the image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

__all__ = ["grid_sample"]


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """`F.grid_sample` in its bilinear mode, zeros outside, corners not aligned. The grid gets no gradient.

    Args:
        x: [N, C, H, W].
        grid: [N, H', W', 2], (x, y) in [-1, 1].

    Returns:
        [N, C, H', W'].
    """
    result: Tensor = _Sampling.apply(x, grid.detach())  # type: ignore[no-untyped-call]
    return result


class _Sampling(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _Spreading.apply(g, grid, ctx.size), None  # type: ignore[no-untyped-call]


class _Spreading(Function):
    """The transpose of sampling: each value goes to the four pixels that it would have come from."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        x = g.new_empty(1).expand(size)  # only its shape is read
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(g, x, grid, 0, 0, False, [True, False])[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _Sampling.apply(gg, grid), None, None  # type: ignore[no-untyped-call]
