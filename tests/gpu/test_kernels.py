"""The CUDA kernels against plain torch, in every type, layout and shape that could go wrong. pytest -m gpu tests/gpu"""

from __future__ import annotations

import itertools

import pytest
import torch

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.build import kernels
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

pytestmark = pytest.mark.gpu
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Of one rounding of the result, which both sides make, and of float32 sums."""
    eps = max(torch.finfo(dtype).eps, 1e-6 if dtype != torch.float64 else 1e-7)
    return {"rtol": 2 * eps, "atol": 2 * eps}


def test_they_can_be_built() -> None:
    assert kernels() is not None


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(2, 8, 16, 16), (3, 5, 7, 9), (1, 3, 1, 1)])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 0.6])
def test_bias_act(dtype, layout, size, act, clamp) -> None:
    torch.manual_seed(0)
    x = torch.randn(size, device="cuda", dtype=dtype).to(memory_format=layout)
    b = torch.randn(size[1], device="cuda", dtype=torch.float32)
    ct = torch.randn(size, device="cuda", dtype=dtype)  # of the other layout, at times
    found = []
    for impl in ("cuda", "ref"):
        xs, bs = x.clone().requires_grad_(True), b.clone().requires_grad_(True)
        ys = (xs, bs) if impl == "cuda" else (xs.double(), bs.to(dtype).double())
        y = bias_act(ys[0], ys[1], act=act, clamp=clamp, scale=0.7, impl=impl)
        gx, gb = torch.autograd.grad((y.double() * ct.double()).sum(), (xs, bs))
        found.append((y.detach().to(dtype), gx, gb))
    (y, gx, gb), (y0, gx0, gb0) = found
    torch.testing.assert_close(y, y0, **tolerance(dtype))
    if clamp is None or dtype in (torch.float64, torch.float32):  # else roundings decide who is clamped
        torch.testing.assert_close(gx, gx0, **tolerance(dtype))
        torch.testing.assert_close(gb, gb0, rtol=1e-2, atol=max(1e-4, 30 * torch.finfo(dtype).eps))


def test_bias_act_without_bias_along_other_axes_and_of_slices() -> None:
    x = torch.randn(6, 8, 10, device="cuda")
    torch.testing.assert_close(bias_act(x, act="lrelu", impl="cuda"), bias_act(x, act="lrelu", impl="ref"))
    for dim in (0, 1, 2, -1):
        b = torch.randn(x.shape[dim], device="cuda")
        torch.testing.assert_close(bias_act(x, b, dim=dim, impl="cuda"), bias_act(x, b, dim=dim, impl="ref"))
    part = x[:, ::2, 1:]
    b = torch.randn(4, device="cuda")
    torch.testing.assert_close(bias_act(part, b, act="relu"), bias_act(part, b, act="relu", impl="ref"))
    odd = torch.randn(33, device="cuda")[1:].view(4, 8)  # not on a boundary of 16 bytes
    torch.testing.assert_close(bias_act(odd, act="lrelu", impl="cuda"), bias_act(odd, act="lrelu", impl="ref"))


def test_bias_act_twice() -> None:
    x = torch.randn(2, 4, 3, 3, device="cuda", dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, device="cuda", dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: bias_act(x, b, act="lrelu", impl="cuda"), (x, b))
    assert torch.autograd.gradgradcheck(lambda x, b: bias_act(x, b, act="lrelu", impl="cuda"), (x, b))


SCALES = [(1, 1), (2, 1), (1, 2), ((2, 1), 1), (1, (3, 2)), (2, 3)]
PADS = [0, 1, (2, 1, 1, 2), (-1, 3, 0, -2), 5]


@pytest.mark.parametrize(("up", "down"), SCALES)
@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [[1, 2, 0.5], [0, 1, -1]], list(range(1, 13))])
def test_upfirdn2d(up, down, taps) -> None:
    torch.manual_seed(0)
    f = setup_filter(taps, device="cuda")
    for size, pad, flip in itertools.product([(2, 3, 9, 8), (1, 2, 17, 33), (3, 1, 6, 5)], PADS, (False, True)):
        x = torch.randn(size, device="cuda", dtype=torch.float64)
        try:
            expected = upfirdn2d(x, f.double(), up, down, pad, flip, gain=1.5, impl="ref")
        except ValueError:
            continue  # nothing left to filter
        torch.testing.assert_close(
            upfirdn2d(x, f, up, down, pad, flip, 1.5, impl="cuda"), expected, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("up", "down"), SCALES[:3])
def test_upfirdn2d_in_every_type(dtype, up, down) -> None:
    torch.manual_seed(0)
    f = setup_filter([1, 3, 3, 1], device="cuda")
    x = torch.randn(4, 16, 32, 32, device="cuda", dtype=dtype)
    expected = upfirdn2d(x.double(), f.double(), up, down, 2, impl="ref")
    torch.testing.assert_close(upfirdn2d(x, f, up, down, 2, impl="cuda").double(), expected, **tolerance(dtype))


@pytest.mark.parametrize(("up", "down"), SCALES)
def test_upfirdn2d_twice(up, down) -> None:
    f = setup_filter([1, 3, 3, 1], device="cuda").double()
    x = torch.randn(1, 2, 5, 6, device="cuda", dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: upfirdn2d(x, f, up, down, 2, impl="cuda"), (x,))
    assert torch.autograd.gradgradcheck(lambda x: upfirdn2d(x, f, up, down, 2, impl="cuda"), (x,))


def test_more_taps_than_there_is_room_for() -> None:
    with pytest.raises(RuntimeError, match="invalid argument"):
        upfirdn2d(torch.zeros(1, 1, 64, 64, device="cuda"), torch.ones(33, 33, device="cuda"), impl="cuda")
