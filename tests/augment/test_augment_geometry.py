"""The geometric transforms against what they mean: flips, shifts, turns, and the wavelet's perfect reconstruction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.augment import AugmentPipe, geometry
from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

IMAGES = torch.rand(3, 2, 12, 16, generator=torch.Generator().manual_seed(0)).double() * 2 - 1

# Changes by up to 0.4 from pixel to pixel. At finer scales sym6, not quite symmetric, spoils mirror images.
SMOOTH = functional.interpolate(IMAGES[:, :, :4, :4], (24, 24), mode="bicubic")


def _same(matrix: list[list[float]]) -> Tensor:
    return torch.tensor(matrix, dtype=torch.float64).expand(len(IMAGES), 3, 3)


def test_mirror() -> None:
    mirrored = geometry.resample(SMOOTH, _same([[-1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    torch.testing.assert_close(mirrored, SMOOTH.flip(3), rtol=0, atol=0.06)


def test_shift_reflects_the_border() -> None:
    # Output pixel (i, j) comes from input pixel (i - 2, j + 3).
    shifted = geometry.resample(IMAGES, _same([[1, 0, 3], [0, 1, -2], [0, 0, 1]]))
    expected = functional.pad(IMAGES, (0, 3, 2, 0), mode="reflect")[:, :, :12, 3:]
    torch.testing.assert_close(shifted, expected)


def test_quarter_turn() -> None:
    # What is shown at (x, y), x to the right and y down, comes from (-y, x): the picture turns to the left.
    turned = geometry.resample(SMOOTH, _same([[0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    torch.testing.assert_close(turned, SMOOTH.rot90(1, (2, 3)), rtol=0, atol=0.06)


def test_far_beyond_the_reflected_border_is_zero() -> None:
    assert geometry.resample(IMAGES, _same([[1, 0, 100], [0, 1, 0], [0, 0, 1]])).abs().max() < 1e-12


def test_zooming_out_does_not_alias() -> None:
    """A checkerboard at the finest scale, shrunk by 1.5, is flat grey after a good low-pass filter."""
    checkers = (torch.arange(32) % 2).double().mul(2).sub(1)
    checkers = (checkers[:, None] * checkers).expand(1, 1, 32, 32)
    shrunk = geometry.resample(checkers, torch.diag(torch.tensor([1.5, 1.5, 1.0], dtype=torch.float64))[None])
    grid = functional.affine_grid(torch.eye(2, 3).double()[None] * 1.5, [1, 1, 32, 32], align_corners=False)
    naive = functional.grid_sample(checkers, grid, padding_mode="reflection", align_corners=False)
    assert shrunk.std() < 0.35 * naive.std()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (4, 7), (6, 0)])
def test_doubling_against_a_loop(low: int, high: int) -> None:
    side, taps = 8, geometry.SYM6
    signal = torch.rand(side, dtype=torch.float64)
    padded = functional.pad(signal[None, None], (low, high), mode="reflect").flatten()
    expected = torch.zeros(2 * len(padded), dtype=torch.float64)
    for k in range(len(expected)):
        for j in range(len(padded)):
            if 0 <= k + geometry.CENTRE - 2 * j < len(taps):
                expected[k] += 2 * taps[k + geometry.CENTRE - 2 * j] * padded[j]
    torch.testing.assert_close(geometry._doubling_matrix(side, low, high) @ signal, expected)


def test_halving_undoes_doubling() -> None:
    doubled = geometry._doubling_matrix(16, geometry.RIM, geometry.RIM)
    halved = geometry._halving_matrix(16, torch.device("cpu"), torch.float64)
    torch.testing.assert_close(halved @ doubled, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-10)


def test_untouched_images_are_passed_on_to_the_bit() -> None:
    inverse = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    assert geometry.resample(IMAGES, inverse) is IMAGES
    inverse[1, 0, 2] = 0.5
    mixed = geometry.resample(IMAGES, inverse)
    assert torch.equal(mixed[[0, 2]], IMAGES[[0, 2]])
    torch.testing.assert_close(mixed[1:2], geometry.resample(IMAGES[1:2], inverse[1:2]))
    assert not torch.equal(mixed[1], IMAGES[1])


def test_rotation_before_or_after_happens_with_probability_p() -> None:
    torch.manual_seed(0)
    inverse = geometry.draw_inverse(AugmentSpec(rotate=0.75), Draws(20000, 0.8), 32, 32)
    turned = (inverse[:, 0, 1].abs() > 1e-12).double().mean()
    assert abs(turned - 0.6) < 4.5 * math.sqrt(0.6 * 0.4 / 20000)


@pytest.mark.parametrize(
    ("transform", "spread"),  # standard deviation of the named entry's logarithm, or of the entry, when always applied
    [("scale", 0.2 * math.log(2)), ("aniso", 0.2 * math.log(2)), ("xfrac", 0.125 * 40), ("xint", 5 / math.sqrt(3))],
)
def test_strengths_are_the_papers(transform: str, spread: float) -> None:
    torch.manual_seed(0)
    inverse = geometry.draw_inverse(AugmentSpec(**{transform: 1}), Draws(20000, 1.0), 24, 40)
    sample = inverse[:, 0, 0].log() if transform in ("scale", "aniso") else inverse[:, 0, 2]
    assert sample.mean().abs() < 4.5 * spread / math.sqrt(20000)
    assert sample.std() == pytest.approx(spread, rel=0.03)
    if transform == "aniso":
        torch.testing.assert_close(inverse[:, 0, 0] * inverse[:, 1, 1], torch.ones(20000, dtype=torch.float64))


def test_one_pixel_images_survive() -> None:
    torch.manual_seed(0)
    tiny = torch.rand(4, 3, 1, 1)
    assert AugmentPipe(scale=1, rotate=1, xint=1, imgfilter=1)(tiny).shape == tiny.shape
