"""upfirdn2d against the official numbers, against the definition written as loops, and against finite differences."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_utils.ops import upfirdn2d as ops
from torch_utils.ops.build import KernelsUnavailable
from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

GOLDEN = np.load(Path(__file__).parents[1] / "data/ops/upfirdn2d.npz")
CASES = json.loads(str(GOLDEN["cases"]))


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def naive(x: Tensor, f: Tensor, up, down, pad, flip_filter: bool, gain: float) -> Tensor:
    """The definition, one output pixel at a time: f as [kh, kw], up and down as (x, y), pad as (x0, x1, y0, y1)."""
    n, c, h, w = x.shape
    (kh, kw), (x0, x1, y0, y1) = f.shape, pad
    padded = x.new_zeros(n, c, h * up[1] + y0 + y1, w * up[0] + x0 + x1)
    for row, column in itertools.product(range(h), range(w)):
        i, j = row * up[1] + y0, column * up[0] + x0
        if 0 <= i < padded.shape[2] and 0 <= j < padded.shape[3]:
            padded[:, :, i, j] = x[:, :, row, column]
    taps = f if flip_filter else f.flip([0, 1])
    rows = range(0, padded.shape[2] - kh + 1, down[1])
    columns = range(0, padded.shape[3] - kw + 1, down[0])
    out = [(padded[:, :, i : i + kh, j : j + kw] * taps).sum([2, 3]) for i in rows for j in columns]
    return gain * torch.stack(out, dim=2).reshape(n, c, len(rows), len(columns))


@pytest.mark.parametrize("case", [case for case in CASES if "i" in case], ids=str)
def test_golden(case):
    i = case["i"]
    options = {name: value for name, value in case.items() if name not in ("i", "f")}
    x = golden(f"x{i}").requires_grad_()
    y = upfirdn2d(x, golden(f"f{i}") if case["f"] else None, **options)
    assert_close(y, golden(f"y{i}"), rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(y, x, golden(f"ct{i}"))
    assert_close(grad, golden(f"gx{i}"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if "fn" in case], ids=str)
def test_golden_wrappers(case):
    y = getattr(ops, case["fn"])(golden("w_x"), golden("w_f"), **case["kw"])
    assert_close(y, golden(case["key"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if "setup_filter" in case], ids=str)
def test_golden_setup_filter(case):
    assert_close(setup_filter(case["f"], **case["kw"]), golden(f"sf{case['setup_filter']}"))


@pytest.mark.parametrize("taps", [(4, 4), (3, 5), (4,), (9,)], ids=str)
@pytest.mark.parametrize("pad", [(5, 5, 6, 6), (6, 3, 2, 8), (12, 1, 8, -2), (-1, 9, 11, -1)], ids=str)
@pytest.mark.parametrize("up_down", [((1, 1), (1, 1)), ((1, 1), (2, 3)), ((2, 2), (1, 1)), ((3, 1), (2, 2))], ids=str)
@pytest.mark.parametrize("flip_filter", [False, True])
def test_definition(taps, pad, up_down, flip_filter):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=rng)
    f = torch.randn(taps, dtype=torch.float64, generator=rng)
    up, down = up_down
    y = upfirdn2d(x, f, up=up, down=down, padding=pad, flip_filter=flip_filter, gain=-1.5)
    f2d = torch.outer(f, f) if f.ndim == 1 else f
    assert_close(y, naive(x, f2d, up, down, pad, flip_filter, gain=-1.5))


@pytest.mark.parametrize("taps", [(4, 4), (9,)], ids=str)
@pytest.mark.parametrize(
    ("up", "down", "padding"), [(1, 1, 3), (2, 1, [4, 3, 3, 4]), (1, 2, 4), (2, 3, [5, 6, -1, 9])], ids=str
)
def test_gradients(taps, up, down, padding):
    f = torch.rand(taps, dtype=torch.float64)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)

    def squared(x: Tensor) -> Tensor:  # linear by itself, whose second derivative would be zero whatever the code
        return upfirdn2d(x, f, up=up, down=down, padding=padding).square()

    assert gradcheck(squared, x)
    assert gradgradcheck(squared, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [{"up": 2}, {"down": 2}, {}], ids=str)
def test_dtypes(dtype, scale):
    x, f = torch.randn(2, 3, 8, 8), setup_filter([1, 3, 3, 1])
    y = upfirdn2d(x.to(dtype), f, padding=2, **scale)
    assert y.dtype == dtype
    tolerance = 8 * torch.finfo(dtype).eps if dtype.itemsize < 4 else 1e-5
    assert_close(y.float(), upfirdn2d(x, f, padding=2, **scale), rtol=tolerance, atol=tolerance)


def test_wrappers_keep_flat_images_and_round_sizes():
    f = setup_filter([1, 3, 3, 1])
    flat = torch.ones(1, 2, 6, 8)
    for y, size in [(filter2d(flat, f), (6, 8)), (upsample2d(flat, f), (12, 16)), (downsample2d(flat, f), (3, 4))]:
        assert y.shape[2:] == size
        assert_close(y[:, :, 2:-2, 2:-2], torch.ones_like(y[:, :, 2:-2, 2:-2]))
    assert upsample2d(flat, f, up=[3, 1]).shape[2:] == (6, 24)
    assert downsample2d(flat, f, down=[4, 1]).shape[2:] == (6, 2)
    assert filter2d(flat, f, padding=[1, 2]).shape[2:] == (10, 10)


def test_setup_filter():
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter([1, 3], normalize=False).tolist() == [[1, 3], [3, 9]]
    assert setup_filter([1, 3], normalize=False, flip_filter=True, gain=2).tolist() == [[18, 6], [6, 2]]
    assert setup_filter([1, 3], separable=True).tolist() == [0.25, 0.75]
    assert setup_filter(range(1, 9)).shape == (8,)
    assert setup_filter(range(1, 9), separable=False).shape == (8, 8)
    flat = upfirdn2d(torch.ones(1, 1, 9, 9), setup_filter(range(1, 10), gain=4))
    assert_close(flat, torch.full((1, 1, 1, 1), 4.0))


X = torch.zeros(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: upfirdn2d(X[0], None), r"input has shape \(1, 4, 4\); expected \[N, C, H, W\]"),
        (lambda: upfirdn2d(X, torch.ones(5, 6), padding=[0, 0]), "filter, 5x6, is larger than .* image, 4x4; pad more"),
        (lambda: upfirdn2d(X, torch.ones(1, 1, 1)), r"filter has shape \(1, 1, 1\); expected \[k\] or \[kh, kw\]"),
        (lambda: upfirdn2d(X, None, padding=[1, 2, 3]), r"padding=\[1, 2, 3\]; expected an integer, \[x, y\]"),
        (lambda: upfirdn2d(X, None, padding=0.5 * torch.ones(2)), "padding=.*; expected an integer"),
        (lambda: upfirdn2d(X, None, up=0), "up=0; expected a positive integer"),
        (lambda: upfirdn2d(X, None, down=[1, 2, 3]), r"down=\[1, 2, 3\]; expected a positive integer or two"),
        (lambda: upfirdn2d(X, None, impl="fast"), "impl='fast' is unknown; expected 'auto', 'ref' or 'cuda'"),
        (lambda: setup_filter([]), r"taps of shape \(0,\); expected a number, \[k\] or \[kh, kw\]"),
        (lambda: setup_filter([[1, 2]], separable=True), "separable=True needs 1-D taps"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cuda_kernels_are_not_pretended():
    if torch.cuda.is_available():
        pytest.skip("there are some")
    with pytest.raises(KernelsUnavailable, match="torch finds no CUDA device"):
        upfirdn2d(X, None, impl="cuda")
