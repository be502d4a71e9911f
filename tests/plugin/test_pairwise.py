"""Distances between rows: their values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kd_plugin.pairwise import pairwise


def rows(*shape: int, dtype: torch.dtype = torch.float64, offset: float = 0.0) -> Tensor:
    return (torch.randn(*shape, dtype=dtype) + offset).requires_grad_()


@pytest.mark.parametrize("shapes", [((5, 3), (4, 3)), ((2, 5, 3), (2, 4, 3))])
def test_gradients_by_differences(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = rows(*shapes[0]), rows(*shapes[1])
    assert torch.autograd.gradcheck(pairwise, (a, b))
    assert torch.autograd.gradgradcheck(pairwise, (a, b))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_in_single_precision_near_and_far_from_zero(offset: float) -> None:
    """Rows that nearly agree (the first of each set) and rows with a common offset keep their digits."""
    a, b = rows(8, 256, offset=offset), rows(20, 256, offset=offset)
    with torch.no_grad():
        a[0] = b[0] + 1e-3 * torch.randn(256)
    a32, b32 = (x.detach().float().requires_grad_() for x in (a, b))
    weights = torch.rand(8, 20, dtype=torch.float64)
    exact = torch.autograd.grad((torch.cdist(a32.double(), b32.double()) * weights).sum(), (a32, b32))
    found = torch.autograd.grad((pairwise(a32, b32) * weights.float()).sum(), (a32, b32))
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3 * float(other.abs().max()))


@pytest.mark.parametrize("count", [65, 200])
def test_more_rows_are_nearly_exact(count: int) -> None:
    a, b = (rows(2, count, 32, dtype=torch.float32, offset=10.0) for _ in range(2))
    exact = torch.cdist(a.double(), b.double())
    torch.testing.assert_close(pairwise(a, b).double(), exact, rtol=0, atol=1e-5 * float(exact.max()))
    among = pairwise(a, a)
    assert float(among.detach().diagonal(dim1=-2, dim2=-1).abs().max()) == 0
    found = torch.autograd.grad(among.square().sum(), a)[0]
    by_hand = 4 * (count * a - a.sum(dim=-2, keepdim=True))  # of the sum over i and j of |a_i - a_j|^2
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-4 * float(by_hand.abs().max()))


def test_equal_rows_have_no_gradient_and_distance_zero() -> None:
    a = rows(3, 4)
    distances = pairwise(a, a)
    assert float(distances.detach().diagonal().abs().max()) == 0
    (gradient,) = torch.autograd.grad(distances.diagonal().sum(), a)
    assert gradient.abs().max() == 0


def test_only_what_needs_a_gradient_gets_one() -> None:
    a, b = rows(3, 4), rows(5, 4).detach()
    pairwise(a, b).sum().backward()
    assert a.grad is not None
    assert b.grad is None
