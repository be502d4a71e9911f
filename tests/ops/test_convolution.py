"""The convolution with single-convolution derivatives, and its Winograd form, against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops import winograd
from torch_utils.ops.convolution import convolution

CASES = [
    (3, 1, (1, 1), False, 1),
    (3, 2, (0, 0), False, 1),
    (3, 2, (1, 0), False, 2),
    (1, 1, (0, 0), False, 1),
    (3, 2, (0, 1), True, 1),
    (2, 3, (0, 0), True, 2),
]


@pytest.mark.parametrize("size", [(4, 5), (3, 6)])
@pytest.mark.parametrize(("kernel", "stride", "padding", "transposed", "groups"), CASES)
def test_values_and_derivatives_are_torchs(size, kernel, stride, padding, transposed, groups):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    channels = (2, 4 // groups) if transposed else (4, 2 // groups)
    w = torch.randn(*channels, kernel, kernel, dtype=torch.float64, requires_grad=True)

    def ours(x, w):
        return convolution(x, w, stride, padding, transposed, groups)

    theirs = (F.conv_transpose2d if transposed else F.conv2d)(x, w, stride=stride, padding=padding, groups=groups)
    torch.testing.assert_close(ours(x, w), theirs)
    assert torch.autograd.gradcheck(ours, (x, w))
    assert torch.autograd.gradgradcheck(ours, (x, w))


def test_a_frozen_kernel_keeps_no_activations():
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        convolution(x, torch.randn(3, 2, 3, 3), padding=(1, 1))
    assert saved == [torch.Size([3, 2, 3, 3])]


@pytest.fixture
def winograd_everywhere(monkeypatch):
    monkeypatch.setattr(winograd, "gains", lambda x, w: x.shape[3] % winograd.TILE == 0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(5, 4), (4, 12)])
def test_winograd_is_exact_in_exact_arithmetic(winograd_everywhere, monkeypatch, layout, size):
    taps = winograd._taps().double()
    taps[1:3] = torch.tensor([[-1, -1, -1], [-1, 1, -1]]) / torch.tensor(6.0, dtype=torch.float64)
    taps[3:5] = torch.tensor([[1, 2, 4], [1, -2, 4]]) / torch.tensor(24.0, dtype=torch.float64)
    monkeypatch.setattr(winograd, "_taps", lambda: taps)
    torch.manual_seed(0)
    x = torch.randn(1, 2, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_(True)
    w = torch.randn(3, 2, 3, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_(True)

    def ours(x, w):
        return convolution(x, w, padding=(1, 1))

    torch.testing.assert_close(ours(x, w), F.conv2d(x, w, padding=1), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(ours, (x, w))
    assert torch.autograd.gradgradcheck(ours, (x, w))


def test_winograd_loses_little_in_float32():
    torch.manual_seed(0)
    x = torch.randn(4, 256, 32, 32).to(memory_format=torch.channels_last)
    w = torch.randn(192, 256, 3, 3) / 48
    assert winograd.gains(x, w)
    exact = F.conv2d(x.double(), w.double(), padding=1)
    direct, ours = F.conv2d(x, w, padding=1), convolution(x, w, padding=(1, 1))
    assert not torch.equal(direct, ours)  # it was taken
    assert (ours - exact).abs().max() < 6 * (direct - exact).abs().max() < 6e-5


def test_winograd_is_taken_only_where_it_gains():
    wide, narrow = torch.empty(256, 256, 3, 3), torch.empty(128, 256, 3, 3)
    images = torch.empty(4, 256, 32, 32)
    assert winograd.gains(images, wide)
    assert not winograd.gains(images, narrow)
    assert not winograd.gains(images[:1], wide)
    assert not winograd.gains(images.to(torch.bfloat16), wide.to(torch.bfloat16))
    assert not winograd.gains(torch.empty(4, 256, 64, 34), wide)
