"""The image's derivatives of grid_sample, to second order, against torch's own values and finite differences."""

import torch
import torch.nn.functional as F

from torch_utils.ops.grid_sample import grid_sample


def test_values_and_derivatives():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(2, 4, 7, 2, dtype=torch.float64) * 2.4 - 1.2  # some places lie outside
    options = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": False}
    torch.testing.assert_close(grid_sample(x, grid), F.grid_sample(x, grid, **options))
    assert torch.autograd.gradcheck(lambda x: grid_sample(x, grid), (x,))
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid), (x,))


def test_the_grid_is_a_constant():
    grid = torch.zeros(1, 2, 2, 2, requires_grad=True)
    x = torch.randn(1, 1, 3, 3, requires_grad=True)
    grid_sample(x, grid).sum().backward()
    assert grid.grad is None
