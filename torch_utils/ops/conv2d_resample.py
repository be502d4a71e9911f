"""Convolution with up- or downsampling, in the cheaper order."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_utils.ops.convolution import convolution
from torch_utils.ops.padding import Padding, Sides, downsample_padding, parse_padding, split_padding, upsample_padding
from torch_utils.ops.upfirdn2d import upfirdn2d

__all__ = ["conv2d_resample"]


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample by a FIR filter and convolve, or convolve and downsample by a FIR filter.

    The filter and the convolution commute, so they run in the order that does the least work: a kernel of one pixel
    acts at the lower resolution; a larger one is folded into a strided convolution, transposed for `up`.

    Args:
        x: [N, C_in, H, W].
        w: [C_out, C_in / groups, kh, kw].
        f: low-pass filter from `setup_filter`, used if `up` or `down` is above 1; None = the identity.
        up: integer factor of enlargement.
        down: integer factor of reduction; not together with `up`.
        padding: in pixels of the upsampled image, on top of what centres the filter: n, [x, y] or [x0, x1, y0, y1].
        groups: as in torch.
        flip_weight: True = correlation with `w`, as torch's conv2d; False = convolution.
        flip_filter: False = convolution with `f`.

    Returns:
        [N, C_out, H', W'] with H' = (H·up + y0 + y1 - kh)//down + 1 for an f of even length.

    Raises:
        ValueError: `up` and `down` both above 1.
    """
    if min(up, down) < 1 or (up > 1 and down > 1):
        raise ValueError(
            f"conv2d_resample: up={up} and down={down}; expected positive integers, at least one of them 1."
        )
    if up > 1:
        pad = upsample_padding(f, (up, up), padding)
        return _upsampling(x, w, f, up, pad, groups, flip_weight, flip_filter)
    if down > 1:
        pad = downsample_padding(f, (down, down), padding)
        if w.shape[2:] == (1, 1):
            x = upfirdn2d(x, f, down=down, padding=pad, flip_filter=flip_filter)
            return convolution(x, w, groups=groups)
        x = upfirdn2d(x, f, padding=pad, flip_filter=flip_filter)
        return convolution(x, _correlating(w, flip_weight), stride=down, groups=groups)

    x, rest = split_padding(x, parse_padding(padding))
    return convolution(x, _correlating(w, flip_weight), padding=rest, groups=groups)


def _correlating(w: Tensor, flip_weight: bool) -> Tensor:
    """The kernel with which torch's correlation does what `flip_weight` asks for."""
    return w if flip_weight or w.shape[2:] == (1, 1) else w.flip([2, 3])


def _upsampling(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    pad: Sides,
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> Tensor:
    """The branch `up > 1` of `conv2d_resample`; `pad` includes what centres the filter."""
    gain = up**2
    c_out, c_in, kh, kw = w.shape
    if kh == kw == 1:
        return upfirdn2d(convolution(x, w, groups=groups), f, up=up, padding=pad, flip_filter=flip_filter, gain=gain)

    # A transposed convolution convolves the zero-inserted image (it does not correlate), with a kernel stored as
    # [C_in, C_out / groups]. It pads by k-1 on either side, and leaves out the up-1 zeros after the last pixel.
    kernel = w.flip([2, 3]) if flip_weight else w
    kernel = kernel.reshape(groups, c_out // groups, c_in, kh, kw).transpose(1, 2)
    kernel = kernel.reshape(groups * c_in, c_out // groups, kh, kw)
    if w.is_contiguous(memory_format=torch.channels_last):  # else each of its convolutions would rearrange it
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    x0, x1, y0, y1 = pad
    x0, x1 = x0 - (kw - 1), x1 - (kw - up)
    y0, y1 = y0 - (kh - 1), y1 - (kh - up)
    crop_x = max(0, min(-x0, -x1, kw - 1))
    crop_y = max(0, min(-y0, -y1, kh - 1))
    x = convolution(x, kernel, stride=up, padding=(crop_y, crop_x), transposed=True, groups=groups)
    pad = (x0 + crop_x, x1 + crop_x, y0 + crop_y, y1 + crop_y)
    return upfirdn2d(x, f, padding=pad, flip_filter=flip_filter, gain=gain)
