"""ADA colour, filtering and corruption against the formulas, written out naively."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.augment import AugmentPipe, color, corrupt
from training.augment import filter as band_filter
from training.augment.draws import Draws
from training.augment.spec import AugmentSpec


def _images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def _colored(rgb: list[float], percentile: float, **spec: float) -> list[float]:
    pixel = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    return AugmentPipe(**spec)(pixel, debug_percentile=percentile).flatten().tolist()


# ---- Colour


def test_hue_by_a_third_of_a_turn_permutes_the_channels() -> None:
    # Percentile 5/6 of U(-pi, pi) is 2/3 pi.
    assert _colored([0.1, 0.5, -0.7], 5 / 6, hue=1) == pytest.approx([-0.7, 0.1, 0.5])


def test_luma_flip_negates_the_mean_and_keeps_the_differences() -> None:
    assert _colored([0.1, 0.5, -0.9], 0.9, lumaflip=1) == pytest.approx([0.3, 0.7, -0.7])


def test_saturation_scales_distances_to_grey() -> None:
    factor = 2 ** torch.erfinv(torch.tensor(0.6, dtype=torch.float64)).item()
    grey = (0.1 + 0.5 - 0.9) / 3
    expected = [grey + factor * (value - grey) for value in (0.1, 0.5, -0.9)]
    assert _colored([0.1, 0.5, -0.9], 0.8, saturation=1) == pytest.approx(expected)


def test_contrast_then_shift_order_is_brightness_first() -> None:
    quantile = torch.erfinv(torch.tensor(0.6, dtype=torch.float64)).item()
    expected = [2 ** (0.5 * quantile) * (value + 0.2 * quantile) for value in (0.1, 0.5, -0.9)]
    assert _colored([0.1, 0.5, -0.9], 0.8, brightness=1, contrast=1) == pytest.approx(expected)


def test_grey_image_is_a_colour_image_with_equal_channels() -> None:
    torch.manual_seed(0)
    matrix = color.draw_matrix(AugmentSpec(brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1), Draws(4, 1.0))
    grey = _images(4, 1, 5, 6)
    expected = color.apply_matrix(grey.expand(-1, 3, -1, -1), matrix).mean(1, keepdim=True)
    torch.testing.assert_close(color.apply_matrix(grey, matrix), expected)


def test_other_channel_counts_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"--augpipe: colour transforms need images with 1 or 3 channels, got 4; choose"
    ):
        AugmentPipe(hue=1)(torch.zeros(1, 4, 8, 8))


# ---- Filter


@pytest.mark.parametrize("shape", [(2, 3, 24, 40), (2, 1, 50, 23)])
def test_filter_against_a_padded_convolution(shape: tuple[int, ...]) -> None:
    images = _images(*shape)
    gains = torch.tensor([[1.0, 0.5, 2.0, 0.1], [3.0, 1.0, 0.2, 0.7]], dtype=torch.float64)
    for image, gain, filtered in zip(images, gains, band_filter.amplify(images, gains), strict=True):
        taps = (gain @ band_filter.band_filters()).flip(0)
        padded = torch.nn.functional.pad(image[:, None], (21, 21, 21, 21), mode="reflect")
        rows = torch.nn.functional.conv2d(padded, taps.view(1, 1, 1, -1))
        torch.testing.assert_close(filtered, torch.nn.functional.conv2d(rows, taps.view(1, 1, -1, 1))[:, 0])


def test_bands_sum_to_one_and_part_the_spectrum() -> None:
    bands = band_filter.band_filters()
    impulse = torch.zeros(43, dtype=torch.float64)
    impulse[21] = 1
    torch.testing.assert_close(bands.sum(0), impulse)
    response = torch.fft.rfft(bands, 512).abs()  # [4, 257], bin 256 is the Nyquist frequency
    centres = [0, 48, 96, 256]  # of 0-32, 32-64, 64-128, 128-256
    for band, centre in enumerate(centres):
        assert response[:, centre].argmax() == band


def test_expected_power_is_kept() -> None:
    """One band amplified: the power of a 1/f image stays. Four in a row only approximately, as in the paper."""
    torch.manual_seed(0)
    for band in range(4):
        multipliers = [float(b == band) for b in range(4)]
        gains = band_filter.draw_gains(AugmentSpec(imgfilter=1, imgfilter_bands=multipliers), Draws(16, 1.0))
        torch.testing.assert_close(gains.square() @ band_filter.POWER, torch.ones(16, dtype=torch.float64))
        assert gains[:, band].std() > 0.1


def test_filter_passes_on_images_without_gain() -> None:
    images = _images(2, 3, 30, 30).float()
    gains = torch.tensor([[1.0] * 4, [1, 2, 1, 1]], dtype=torch.float64)
    assert torch.equal(band_filter.amplify(images, gains)[0], images[0])
    assert band_filter.amplify(images, torch.ones(2, 4)) is images


# ---- Corruption


def test_noise_has_the_drawn_deviation() -> None:
    torch.manual_seed(0)
    noise = corrupt.add_noise(torch.zeros(3, 3, 64, 64), torch.tensor([0.0, 0.1, 0.5]))
    deviations = noise.flatten(1).std(1).tolist()
    assert deviations == pytest.approx([0, 0.1, 0.5], rel=0.03)
    sigma = corrupt.draw_sigma(AugmentSpec(noise=0.5), Draws(20000, 1.0))
    assert (sigma > 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert sigma.square().mean().item() == pytest.approx(0.5 * 0.1**2, rel=0.06)  # half-normal: E[sigma²] = std²


def test_cutout_against_a_loop() -> None:
    images = _images(3, 2, 9, 14)
    holes = torch.tensor([[0.5, 0.1, 0.8], [0.25, 0.5, 0.5], [0.0, 0.3, 0.3]], dtype=torch.float64)
    expected = images.clone()
    for n, (side, x, y) in enumerate(holes.tolist()):
        for i in range(9):
            for j in range(14):
                if abs((j + 0.5) / 14 - x) < side / 2 and abs((i + 0.5) / 9 - y) < side / 2:
                    expected[n, :, i, j] = 0
    result = corrupt.cut_out(images, holes)
    assert torch.equal(result, expected)
    assert torch.equal(result[2], images[2])
    assert (result == 0).any()


# ---- Draws


def test_distributions() -> None:
    torch.manual_seed(0)
    draws, n = Draws(40000, 0.5), 40000
    assert draws.gate(0.3).double().mean().item() == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / n))
    assert sorted(draws.choice(4).unique().tolist()) == [0, 1, 2, 3]
    assert draws.symmetric().aminmax()[0].item() == pytest.approx(-1, abs=1e-2)
    assert draws.normal().std().item() == pytest.approx(1, rel=0.02)
    assert draws.half_normal().min() >= 0


def test_percentile_is_not_random() -> None:
    draws = Draws(2, 0.0, percentile=0.9)
    assert draws.gate(0.0).all()
    assert draws.choice(4).tolist() == [3, 3]
    assert draws.symmetric().tolist() == pytest.approx([0.8, 0.8])
    assert torch.equal(draws.normal(), draws.normal())
