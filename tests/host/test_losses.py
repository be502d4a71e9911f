"""The adversarial losses and penalties against closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import discriminator_loss, generator_loss, path_lengths, path_penalty, r1_penalty


def test_losses_are_the_logistic_ones() -> None:
    real, fake = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected_d = -sum(math.log(sigmoid(x)) for x in real.tolist()) / 2
    expected_d -= sum(math.log(1 - sigmoid(x)) for x in fake.tolist()) / 2
    expected_g = -sum(math.log(sigmoid(x)) for x in fake.tolist()) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(expected_d, rel=1e-12)
    assert generator_loss(fake).item() == pytest.approx(expected_g, rel=1e-12)


def test_r1_of_a_quadratic() -> None:
    """D(x) = sum(a x^2) has the gradient 2 a x, so the penalty and its derivative by a are known."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    real = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty((a * real.square()).sum(dim=(1, 2, 3)), real)
    norm = real.detach().square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty, 4 * 0.49 * norm)
    (slope,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(slope, 8 * 0.7 * norm)


def test_path_lengths_of_a_linear_generator() -> None:
    """For images A w the gradient is A^T y; its expected squared norm is |A|_F^2 / (H W)."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(2 * 4 * 4, 6, dtype=torch.float64, generator=generator)
    ws = torch.randn(4000, 1, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    lengths = path_lengths((ws[:, 0] @ matrix.T).reshape(-1, 2, 4, 4), ws)
    assert lengths.shape == (4000,)
    assert lengths.square().mean().item() == pytest.approx(matrix.square().sum().item() / 16, rel=0.02)


def test_path_lengths_average_over_layers_before_the_root() -> None:
    ws = torch.ones(1, 4, 3, requires_grad=True)
    torch.manual_seed(1)
    fake = ws[:, :1, :].reshape(1, 3, 1, 1)  # only the first of four layers counts
    lengths = path_lengths(fake, ws)
    torch.manual_seed(1)
    noise = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(lengths, (noise.square().sum() / 4).sqrt().reshape(1))


def test_path_penalty() -> None:
    lengths = torch.tensor([1.0, 3.0])
    assert path_penalty(lengths, torch.tensor(2.0)).item() == 1.0
