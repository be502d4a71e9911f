"""Modulated convolution against the official numbers and against the equations, one sample at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter
from training.networks.stylegan2.modulation import modulated_conv2d

GOLDEN = np.load(Path(__file__).parents[1] / "data/ops/modulated_conv2d.npz")


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", json.loads(str(GOLDEN["cases"])), ids=str)
def test_golden(case):
    i = case["i"]
    options = {name: value for name, value in case.items() if name not in ("i", "noise")}
    inputs = [golden(f"{name}{i}").requires_grad_() for name in ("x", "w", "s")]
    noise = golden(f"n{i}") if case["noise"] else None
    y = modulated_conv2d(*inputs, noise=noise, resample_filter=golden("f"), **options)
    assert_close(y, golden(f"y{i}"), rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(y, inputs, golden(f"ct{i}"))
    for grad, name in zip(grads, ("gx", "gw", "gs"), strict=True):
        assert_close(grad, golden(f"{name}{i}"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_equations(fused, demodulate, up, down):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=rng)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=rng)
    styles = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    size = 8 * up // down
    noise = torch.randn(3, 1, size, size, dtype=torch.float64, generator=rng)
    resample = {"up": up, "down": down, "padding": 1, "flip_weight": up == 1}
    f = setup_filter([1, 3, 3, 1])
    y = modulated_conv2d(
        x, weight, styles, noise=noise, resample_filter=f, demodulate=demodulate, fused_modconv=fused, **resample
    )
    for n in range(3):
        kernel = weight * styles[n][None, :, None, None]  # equation 1
        if demodulate:
            kernel = kernel / (kernel.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()  # equation 3
        assert_close(y[n : n + 1], conv2d_resample(x[n : n + 1], kernel, f, **resample) + noise[n])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
def test_gradients(fused, demodulate):
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 2, 3, 3), (2, 2, 3, 3), (2, 2)]
    ]

    def convolve(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, styles, padding=1, demodulate=demodulate, fused_modconv=fused)

    assert gradcheck(convolve, inputs)
    assert gradgradcheck(convolve, inputs)


@pytest.mark.parametrize("fused", [True, False])
def test_float16_does_not_overflow(fused):
    """Weights and styles whose product is far beyond 65504, and one far below the smallest float16."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 8, 8, generator=rng)
    weight = torch.randn(8, 64, 3, 3, generator=rng) * torch.logspace(-6, 4, 8)[:, None, None, None]
    styles = torch.randn(2, 64, generator=rng) * torch.tensor([[1e4], [1e2]])
    exact = modulated_conv2d(x, weight, styles, padding=1, fused_modconv=fused)
    half = modulated_conv2d(x.half(), weight, styles, padding=1, fused_modconv=fused)
    assert half.dtype == torch.float16
    assert_close(half.float(), exact, rtol=1e-2, atol=2e-2)
