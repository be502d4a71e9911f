"""Upsample, pad, FIR-filter and downsample images: every change of resolution in StyleGAN2 is one call of this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from torch_utils.ops.implementation import kernels_for
from torch_utils.ops.padding import (
    Padding,
    Sides,
    downsample_padding,
    filter_size,
    parse_padding,
    split_padding,
    upsample_padding,
)

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]

Scaling: TypeAlias = int | Sequence[int]  # both axes, or [x, y]

# From this many taps on, 1-D taps run as two 1-D passes. Measured forward and backward on one CPU core: with 4 taps the
# two passes take 0.7 to 1.4 times as long as one 2-D pass, with 12 taps 0.6 to 0.9 times.
SEPARABLE_TAPS = 8


def setup_filter(
    f: Sequence[float] | Sequence[Sequence[float]] | Tensor | float | None,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """Prepare a FIR filter for the functions below.

    Args:
        f: taps [k], taps [kh, kw], a number, or None for the identity.
        device: where the filter is to live; None = the CPU.
        normalize: divide by the sum of the taps, so that flat regions keep their value.
        flip_filter: reverse the taps.
        gain: what a flat signal is multiplied by; above 0.
        separable: keep 1-D taps 1-D (they act along both axes); None = from 8 taps on, where it is faster.

    Returns:
        float32 [k] or [kh, kw].

    Raises:
        ValueError: empty filter, more than two axes, or 2-D taps with `separable=True`.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32, device=device)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: taps of shape {tuple(taps.shape)}; expected a number, [k] or [kh, kw].")
    if separable and taps.ndim == 2:
        raise ValueError("setup_filter: separable=True needs 1-D taps; got 2-D.")
    if taps.ndim == 0:
        taps = taps.reshape(1)
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= SEPARABLE_TAPS
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)  # 1-D taps act twice


def _parse_scaling(name: str, scaling: Scaling) -> tuple[int, int]:
    factors = [scaling, scaling] if isinstance(scaling, int) else list(scaling)
    if len(factors) != 2 or not all(isinstance(factor, int) and factor >= 1 for factor in factors):
        raise ValueError(f"upfirdn2d: {name}={scaling!r}; expected a positive integer or two, [x, y].")
    return factors[0], factors[1]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """`gain · down(f ∗ pad(up(x)))`, every channel by itself. Differentiable in `x` to any order.

    `up` follows each pixel by up-1 zeros; `pad` adds zeros around the upsampled image (or crops it); `∗` keeps only
    the positions where the filter lies wholly inside; `down` keeps every down-th pixel, from the first.

    Args:
        x: [N, C, H, W], any floating-point type.
        f: from `setup_filter`: [k] (acts along both axes), [kh, kw], or None for the identity.
        up: integer factor, or [x, y].
        down: integer factor, or [x, y].
        padding: in pixels of the upsampled image: n, [x, y] or [x0, x1, y0, y1].
        flip_filter: False = convolution, True = correlation.
        gain: factor on the result.
        impl: "ref" is plain torch. "auto" knows the derivatives, and runs a kernel of its own on a GPU; "cuda" is that
            kernel, or an error.

    Returns:
        [N, C, (H·upy + y0 + y1 - kh)//downy + 1, (W·upx + x0 + x1 - kw)//downx + 1], of the type of `x`.

    Raises:
        ValueError: input not 4-D, or nothing left to filter.
    """
    compiled = kernels_for("upfirdn2d", impl, x)
    if x.ndim != 4:
        raise ValueError(f"upfirdn2d: the input has shape {tuple(x.shape)}; expected [N, C, H, W].")
    upx, upy = _parse_scaling("up", up)
    downx, downy = _parse_scaling("down", down)
    pad = parse_padding(padding)
    width, height = filter_size(f)
    room = (x.shape[3] * upx + pad[0] + pad[1] - width, x.shape[2] * upy + pad[2] + pad[3] - height)
    if min(room) < 0:
        raise ValueError(
            f"upfirdn2d: the filter, {height}x{width}, is larger than the upsampled and padded image, "
            f"{room[1] + height}x{room[0] + width}; pad more or use a shorter filter."
        )

    if f is None:
        f = x.new_ones(1, 1)
    filtering = _Filtering((upx, upy), (downx, downy), pad, flip_filter, gain, compiled)
    if impl == "ref" or f.requires_grad:
        return filtering.reference(x, f)
    result: Tensor = _Upfirdn2d.apply(x, f, filtering)  # type: ignore[no-untyped-call]
    return result


class _Filtering(NamedTuple):
    """All about a call but its operands. Pairs are (x, y)."""

    up: tuple[int, int]
    down: tuple[int, int]
    pad: Sides
    flip_filter: bool
    gain: float
    kernels: Any  # the CUDA kernels, or None

    def apply(self, x: Tensor, f: Tensor) -> Tensor:
        if self.kernels is None:
            return self.reference(x, f)
        run, flip, (left, right, top, bottom) = self.kernels.upfirdn2d, self.flip_filter, self.pad
        if f.ndim == 1:
            x = run(x, f[None, :], (self.up[0], 1), (self.down[0], 1), (left, right, 0, 0), flip, self.gain)
            y: Tensor = run(x, f[:, None], (1, self.up[1]), (1, self.down[1]), (0, 0, top, bottom), flip, 1.0)
            return y
        y = run(x, f, self.up, self.down, self.pad, flip, self.gain)
        return y

    def reference(self, x: Tensor, f: Tensor) -> Tensor:
        """The readable implementation: what `upfirdn2d` is specified to do, in torch's own convolutions."""
        if f.ndim == 1 and f.numel() < SEPARABLE_TAPS:
            f = torch.outer(f, f)
        (upx, upy), (downx, downy), pad = self.up, self.down, self.pad
        if f.ndim == 2:
            return _one_pass(x, f * self.gain, self.up, self.down, pad, self.flip_filter)
        x = _one_pass(x, f[None, :] * self.gain, (upx, 1), (downx, 1), (pad[0], pad[1], 0, 0), self.flip_filter)
        return _one_pass(x, f[:, None], (1, upy), (1, downy), (0, 0, pad[2], pad[3]), self.flip_filter)

    def adjoint(self, size: tuple[int, int], taps: tuple[int, int], result: tuple[int, int]) -> _Filtering:
        """The transposed linear map: up and down change places, the filter is reversed, and the padding is what
        brings an output of the size `result` back to `size` (sizes and taps are (width, height))."""
        sides: list[int] = []
        for axis in range(2):
            before = taps[axis] - 1 - self.pad[2 * axis]
            length = size[axis] * self.up[axis]  # that the zero-inserted result, padded, must leave after filtering
            after = length - result[axis] * self.down[axis] + taps[axis] - 1 - before - (self.up[axis] - 1)
            sides += [before, after]
        pad = (sides[0], sides[1], sides[2], sides[3])
        return _Filtering(self.down, self.up, pad, not self.flip_filter, self.gain, self.kernels)


class _Upfirdn2d(Function):
    """Linear in x, so its gradient is the same operation again, to any order. Left to torch, the second derivative
    of a depthwise convolution runs channel by channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, filtering: _Filtering) -> Tensor:
        result = filtering.apply(x, f)
        ctx.save_for_backward(f)
        taps = (f.shape[-1], f.shape[0])
        ctx.adjoint = filtering.adjoint((x.shape[3], x.shape[2]), taps, (result.shape[3], result.shape[2]))
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (f,) = ctx.saved_tensors
        return _Upfirdn2d.apply(g, f, ctx.adjoint), None, None  # type: ignore[no-untyped-call]


def _one_pass(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: Sides,
    flip_filter: bool,
) -> Tensor:
    """`upfirdn2d` with a 2-D filter, as one depthwise convolution that never multiplies an inserted zero."""
    channels = x.shape[1]
    height, width = f.shape
    f = f.to(x.dtype)
    x0, x1, y0, y1 = pad
    if up == (1, 1):
        # torch's conv2d correlates: a convolution needs the taps reversed.
        taps = (f if flip_filter else f.flip([0, 1])).expand(channels, 1, height, width)
        x, rest = split_padding(x, pad)
        return F.conv2d(x, taps, stride=(down[1], down[0]), padding=rest, groups=channels)

    # The adjoint of a strided correlation is zero insertion followed by a full convolution, (n-1)·up + k long. The
    # filter wholly inside the padded image is the part of it that starts k-1-p0 in and ends k-up-p1 early.
    taps = (f.flip([0, 1]) if flip_filter else f).expand(channels, 1, height, width)
    left, right = width - 1 - x0, width - up[0] - x1
    top, bottom = height - 1 - y0, height - up[1] - y1
    crop_x = max(0, min(left, right, width - 1))
    crop_y = max(0, min(top, bottom, height - 1))
    x = F.conv_transpose2d(x, taps, stride=(up[1], up[0]), padding=(crop_y, crop_x), groups=channels)
    uneven = [crop_x - left, crop_x - right, crop_y - top, crop_y - bottom]
    if any(uneven):
        x = F.pad(x, uneven)
    return x if down == (1, 1) else x[:, :, :: down[1], :: down[0]]


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Filter without changing the resolution; `padding` is on top of what keeps the size. Args as in `upfirdn2d`."""
    x0, x1, y0, y1 = parse_padding(padding)
    width, height = filter_size(f)
    centred = [x0 + width // 2, x1 + (width - 1) // 2, y0 + height // 2, y1 + (height - 1) // 2]
    return upfirdn2d(x, f, padding=centred, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Enlarge by `up`, brightness kept; `padding` is on top of what makes H·up x W·up. Args as in `upfirdn2d`."""
    upx, upy = _parse_scaling("up", up)
    pad = upsample_padding(f, (upx, upy), padding)
    # Only one pixel in upx·upy is not an inserted zero: the gain makes up for the others.
    gain = gain * upx * upy
    return upfirdn2d(x, f, up=(upx, upy), padding=pad, flip_filter=flip_filter, gain=gain, impl=impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Reduce by `down`; `padding` is on top of what makes H/down x W/down. Args as in `upfirdn2d`."""
    downx, downy = _parse_scaling("down", down)
    pad = downsample_padding(f, (downx, downy), padding)
    return upfirdn2d(x, f, down=(downx, downy), padding=pad, flip_filter=flip_filter, gain=gain, impl=impl)
