"""conv2d_resample against the official numbers, and against resampling and convolving one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

GOLDEN = np.load(Path(__file__).parents[1] / "data/ops/conv2d_resample.npz")


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", json.loads(str(GOLDEN["cases"])), ids=str)
def test_golden(case):
    i = case["i"]
    options = {name: value for name, value in case.items() if name != "i"}
    x, w = golden(f"x{i}").requires_grad_(), golden(f"w{i}").requires_grad_()
    y = conv2d_resample(x, w, golden("f"), **options)
    assert_close(y, golden(f"y{i}"), rtol=1e-5, atol=1e-5)
    grad_x, grad_w = torch.autograd.grad(y, [x, w], golden(f"ct{i}"))
    assert_close(grad_x, golden(f"gx{i}"), rtol=1e-5, atol=1e-5)
    assert_close(grad_w, golden(f"gw{i}"), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("padding", [1, (-1, 3, 2, 0)], ids=str)
@pytest.mark.parametrize("flips", [(False, False), (False, True), (True, False)], ids=str)
def test_equals_one_after_the_other(size, up, down, padding, flips):
    flip_weight, flip_filter = flips
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64, generator=rng)
    w = torch.randn(6, 2, size, size, dtype=torch.float64, generator=rng)
    f = torch.randn(4, 4, dtype=torch.float64, generator=rng)  # asymmetric: a wrong flip shows
    y = conv2d_resample(
        x, w, f, up=up, down=down, padding=padding, groups=2, flip_weight=flip_weight, flip_filter=flip_filter
    )

    x0, x1, y0, y1 = (padding,) * 4 if isinstance(padding, int) else padding
    factor = up if up > 1 else down
    if factor > 1:  # a filter of 4 taps reaches 3 pixels; (3 + up) / 2 of them lie before the pixel, see upsample2d
        before = (4 + up - 1) // 2 if up > 1 else (4 - down + 1) // 2
        after = (4 - factor) // 2
        x0, x1, y0, y1 = x0 + before, x1 + after, y0 + before, y1 + after
        gain = up**2
        x = upfirdn2d(x, f, up=up, padding=[x0, x1, y0, y1], flip_filter=flip_filter, gain=gain)
    else:
        x = F.pad(x, [x0, x1, y0, y1])
    expected = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=2)[:, :, ::down, ::down]
    assert_close(y, expected)


def test_without_a_filter_up_inserts_zeros_and_down_skips():
    x, w = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3)
    inserted = torch.zeros(1, 2, 8, 8)
    inserted[:, :, 1::2, 1::2] = x  # a filter of one tap is centred on the second pixel of two
    assert_close(conv2d_resample(x, w, up=2, padding=1), 4 * F.conv2d(inserted, w, padding=1))
    assert_close(conv2d_resample(x, w, down=2, padding=1), F.conv2d(x, w, padding=1, stride=2))


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_gradients(up, down):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    f = setup_filter([1, 3, 3, 1])

    def convolve(x: Tensor, w: Tensor) -> Tensor:
        return conv2d_resample(x, w, f, up=up, down=down, padding=1)

    assert gradcheck(convolve, (x, w))
    assert gradgradcheck(convolve, (x, w))


@pytest.mark.parametrize("scale", [{"up": 2, "down": 2}, {"up": 0}])
def test_errors(scale):
    with pytest.raises(ValueError, match="expected positive integers, at least one of them 1"):
        conv2d_resample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 1, 1), **scale)
