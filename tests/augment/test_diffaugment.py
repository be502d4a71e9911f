"""DiffAugment against the official implementation's draws and outputs, naive loops, and two derivatives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_plugin.diffaugment import POLICIES
from training.augment import DiffAugment

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "diffaugment.npz")
CASES = json.loads(str(GOLDEN["cases"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['policy']}-{case['input']}")
def test_golden(case: dict) -> None:
    i = case["i"]
    images = torch.from_numpy(GOLDEN[f"x_{case['input']}"])
    expected = torch.from_numpy(GOLDEN[f"y{i}"])
    draws = [torch.from_numpy(GOLDEN[f"draw{i}_{j}"]) for j in range(case["draws"])]
    torch.testing.assert_close(POLICIES[case["policy"]].apply(images, *draws), expected, rtol=0, atol=2e-6)
    torch.manual_seed(case["seed"])  # the same draws in the same order from torch's generator
    torch.testing.assert_close(DiffAugment(case["policy"])(images), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 20), (3, 5)])
def test_translation_against_a_loop(height: int, width: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 4, height, width)
    rows, columns = POLICIES["translation"].draw(images, None)
    assert rows.shape == columns.shape == (6, 1, 1)
    expected = torch.zeros_like(images)
    for n in range(6):
        for i in range(height):
            for j in range(width):
                y, x = i + rows[n].item(), j + columns[n].item()
                if 0 <= y < height and 0 <= x < width:
                    expected[n, :, i, j] = images[n, :, y, x]
    shifted = POLICIES["translation"].apply(images, rows, columns)
    assert torch.equal(shifted, expected)
    assert shifted.is_contiguous()


def test_ranges_of_the_draws() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4000, 1, 20, 31)
    rows, columns = POLICIES["translation"].draw(images, None)  # 20/8 = 2.5 -> 3, 31/8 = 3.9 -> 4
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (-3, 3, -4, 4)
    rows, columns = POLICIES["cutout"].draw(images, None)  # holes of 10 and 16: even, one place more than pixels
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 20, 0, 31)


def test_policy_is_applied_in_its_order_with_one_generator() -> None:
    images = torch.rand(3, 3, 16, 16)
    torch.manual_seed(1)
    together = DiffAugment("translation, color")(images)
    torch.manual_seed(1)
    one_by_one = DiffAugment("color")(DiffAugment("translation")(images))
    assert torch.equal(together, one_by_one)
    assert DiffAugment("none")(images) is images


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout"])
def test_two_derivatives(policy: str) -> None:
    def augment(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        return DiffAugment(policy)(images.tanh())  # tanh: a second derivative to carry through

    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(augment, (images,))
    assert torch.autograd.gradgradcheck(augment, (images,), fast_mode=True)


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match=r"^--diffaugment: unknown policy 'colour'; nearest: 'color'"):
        DiffAugment("colour,cutout", "--diffaugment")
