"""bias_act against the official numbers, to second order, and against finite differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from torch_utils.ops.build import KernelsUnavailable

GOLDEN = np.load(Path(__file__).parents[1] / "data/ops/bias_act.npz")


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", json.loads(str(GOLDEN["cases"])), ids=str)
def test_golden_to_second_order(case):
    i = case["i"]
    options = {name: value for name, value in case.items() if name not in ("i", "bias")}
    x, b, cotangent = (golden(f"{name}{i}").requires_grad_() for name in ("x", "b", "ct"))
    y = bias_act(x, b, **options)
    assert_close(y, golden(f"y{i}"))
    grad_x, grad_b = torch.autograd.grad(y, [x, b], cotangent, create_graph=True)
    assert_close(grad_x, golden(f"gx{i}"))
    assert_close(grad_b, golden(f"gb{i}"))
    # dd is the cotangent of the gradient in x
    of_cotangent, of_x = torch.autograd.grad(grad_x, [cotangent, x], golden(f"dd{i}"), allow_unused=True)
    assert_close(of_cotangent, golden(f"g2ct{i}"))
    assert_close(torch.zeros_like(x) if of_x is None else of_x, golden(f"g2x{i}"))


def test_golden_2d_and_defaults():
    assert_close(bias_act(golden("x2d"), golden("b2d"), act="lrelu"), golden("y2d_lrelu"))
    table = json.loads(str(GOLDEN["table"]))
    assert {name: (act.alpha, act.gain) for name, act in ACTIVATIONS.items()} == {
        name: (act["def_alpha"], act["def_gain"]) for name, act in table.items()
    }


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gradients(act):
    x = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = (x + 0.1 * x.sign()).requires_grad_()  # finite differences must not straddle the kink at 0
    b = torch.tensor([0.05, -0.05], dtype=torch.float64, requires_grad=True)

    def squared(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, alpha=0.3, gain=0.7, clamp=0.9).square()

    assert gradcheck(squared, (x, b))
    assert gradgradcheck(squared, (x, b))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(act, dtype):
    x, b = torch.randn(4, 3, 2, 2), torch.randn(3)
    y = bias_act(x.to(dtype), b, act=act, clamp=1)
    assert y.dtype == dtype
    assert y.abs().max() <= 1
    tolerance = 8 * torch.finfo(dtype).eps if dtype.itemsize < 4 else 1e-5
    assert_close(y.float(), bias_act(x, b, act=act, clamp=1), rtol=tolerance, atol=tolerance)


def test_bias_runs_along_dim_and_may_be_missing():
    x = torch.randn(2, 3, 4)
    assert_close(bias_act(x, torch.arange(4.0), dim=2), x + torch.arange(4.0))
    assert_close(bias_act(x, torch.arange(4.0), dim=-1), x + torch.arange(4.0))
    assert_close(bias_act(x), x)
    assert_close(bias_act(x, gain=2, clamp=0), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act": "gelu"}, "act='gelu' is unknown; known: linear, relu, lrelu, tanh"),
        ({"clamp": -1}, "clamp=-1 is negative"),
        ({"b": torch.zeros(4)}, r"bias has shape \(4,\), but axis 1 of the input \(2, 3\) needs \(3,\)"),
        ({"impl": "fast"}, "bias_act: impl='fast' is unknown"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        bias_act(torch.zeros(2, 3), **options)


def test_cuda_kernels_are_not_pretended():
    if torch.cuda.is_available():
        pytest.skip("there are some")
    with pytest.raises(KernelsUnavailable, match="torch finds no CUDA device"):
        bias_act(torch.zeros(2, 3), impl="cuda")
