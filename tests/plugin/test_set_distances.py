"""What matching compares by: the energy distance and the drifting field."""

from __future__ import annotations

import math

import pytest
import torch

from kd_plugin import KDError
from kd_plugin.drifting import WIDTHS, drift, drift_loss
from kd_plugin.functional import energy_distance, spread
from kd_plugin.set_distances import SET_DISTANCES


@pytest.mark.parametrize("name", list(SET_DISTANCES))
def test_generated_images_are_drawn_to_the_real_ones(name: str) -> None:
    distance = SET_DISTANCES[name]
    real = torch.randn(3, 64, 5)
    fake = (torch.randn(3, 64, 5) * 0.2 + 2).requires_grad_(True)
    assert distance(fake[0], real[0]).ndim == 0
    optimizer = torch.optim.Adam([fake], lr=0.05)
    before = float(energy_distance(fake.detach(), real))
    for _ in range(200):
        optimizer.zero_grad()
        distance(fake, real).backward()
        optimizer.step()
    assert before > 1.5
    assert float(energy_distance(fake.detach(), real)) < 0.1
    assert 1 < float(fake.std()) < 2  # they do not collapse; those of real images have 1


def test_the_field_by_definition() -> None:
    """Pair by pair, in plain numbers."""
    fake, real = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    rows = [*real, *fake]

    def weight(i: int, j: int) -> float:
        return 0.0 if j == 5 + i else math.exp(-float((fake[i] - rows[j]).norm()) / 0.7)

    for i in range(3):
        share = [
            weight(i, j) / math.sqrt(sum(weight(i, k) for k in range(8)) * sum(weight(k, j) for k in range(3)))
            for j in range(8)
        ]
        of_real, of_fake = sum(share[:5]), sum(share[5:])
        expected = sum(share[j] * of_fake * rows[j] for j in range(5)) - sum(
            share[j] * of_real * rows[j] for j in range(5, 8)
        )
        torch.testing.assert_close(drift(fake, real, [0.7])[0][i], expected)


def test_the_field_vanishes_between_equal_sets() -> None:
    """Attraction and repulsion balance where both distributions are dense and alike."""
    fake, real = torch.randn(1500, 1), torch.randn(1500, 1)
    apart = drift(fake, real + 2, [0.5])[0].abs().mean()
    assert drift(fake, real, [0.5])[0].abs().mean() < apart / 10


def test_the_gradient_is_the_field() -> None:
    fake = torch.randn(2, 6, 9, dtype=torch.float64, requires_grad=True)
    real = 3 * torch.randn(2, 7, 9, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(drift_loss(fake, real), fake)
    unit = spread(real) / 3  # the root of 9 channels
    fields = drift(fake.detach() / unit, real / unit, [3 * share for share in WIDTHS])
    total = torch.stack([field / field.square().mean().sqrt() for field in fields]).sum(dim=0)
    torch.testing.assert_close(gradient * unit, -2 * total / fake.numel())
    # What the teacher's features are measured in is of no account.
    torch.testing.assert_close(drift_loss(10 * fake, 10 * real), drift_loss(fake, real))


def test_the_spread_is_that_of_each_distribution() -> None:
    rows = torch.tensor([[[0.0], [2.0], [2.0]], [[1.0], [1.0], [1.0]]], requires_grad=True)
    found = spread(rows)
    assert found.shape == (2, 1, 1)
    assert not found.requires_grad
    assert found[0].item() == pytest.approx(4 / 3)
    assert 0 < found[1].item() < 1e-9  # all equal: nothing is divided by 0


def test_matching_by_drift(attach, teacher, images) -> None:
    kd = attach(agkd=0.0, cgkd=0.0, match=1.0, match_pull=0.0, match_distance="drift", match_on="embedding")
    fake = images(1).requires_grad_(True)
    found = kd.for_generator(fake, images(2))
    torch.testing.assert_close(found.total, drift_loss(*map(teacher.embed_images, (fake, images(2)))))
    found.total.backward()
    assert fake.grad.abs().sum() > 0


def test_an_unknown_distance(attach) -> None:
    with pytest.raises(KDError, match="match_distance='drive' is unknown; choose one of energy, drift"):
        attach(match=1.0, match_distance="drive")
