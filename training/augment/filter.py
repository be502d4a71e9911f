"""ADA image-space filtering: amplify or damp four frequency bands of each image.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

__all__ = ["amplify", "draw_gains"]

# Low-pass filter of the sym2 wavelet (Daubechies' four taps), orthonormal to its shifts by two.
_ROOT3 = math.sqrt(3)
SYM2 = torch.tensor([1 - _ROOT3, 3 - _ROOT3, 3 + _ROOT3, 1 + _ROOT3], dtype=torch.float64) / (4 * math.sqrt(2))
# Part of the power that natural images (1/f spectrum) have in each band, low to high: what normalisation preserves.
POWER = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13


def draw_gains(spec: AugmentSpec, draws: Draws) -> Tensor:
    """Gain of each band, low to high: [N,4] float64.

    Bands are amplified one after the other, each time scaled such that the expected power of the image stays.
    """
    gains = torch.ones(draws.batch, 4, dtype=torch.float64)
    for band, multiplier in enumerate(spec.imgfilter_bands):
        if multiplier:
            on = draws.gate(spec.imgfilter * draws.p * multiplier)
            amplified = torch.ones_like(gains)
            amplified[:, band] = (draws.normal() * spec.imgfilter_std).exp2().where(on, 1)
            gains = gains * amplified / (POWER * amplified.square()).sum(1, keepdim=True).sqrt()
    return gains


def amplify(images: Tensor, gains: Tensor) -> Tensor:
    """Filters rows and columns of each image by the sum of its bands, times `gains` [N,4] (on the CPU).

    Borders are reflected. As in the paper, one filter acts along both axes, so a gain counts once per axis.
    """
    if (gains == 1).all():
        return images
    # One banded matrix per image and axis with the reflection folded in. CPU time on one core, forward and backward,
    # against padding and two 43-tap depthwise convolutions: 0.24 of it at 64 pixels, 1.2 at 256, 1.04 at 512, 0.58 at
    # 1024. The bands sum to one, so the filter is the identity plus each band's excess: an image whose gains are 1
    # comes out as it was.
    excess = (gains - 1).to(images, non_blocking=True)
    rows, columns = (_filter_matrices(excess, side) for side in images.shape[2:])
    return rows @ images @ columns.mT


def _filter_matrices(excess: Tensor, side: int) -> Tensor:
    """Identity plus the bands times their excess gain [N,4]: [N, 1, side, side]."""
    bands = _band_matrices(side, excess.device, excess.dtype)
    return torch.eye(side).to(bands) + torch.einsum("nb,bij->nij", excess, bands)[:, None]


@functools.lru_cache(maxsize=4)
def _band_matrices(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The bands' filters as matrices on a signal of `side` samples with reflected ends, [4, side, side]."""
    bands = band_filters()
    reach = bands.shape[1] // 2
    period = max(2 * (side - 1), 1)
    source = (torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)) % period
    source = source.minimum(period - source)  # a short side is reflected more than once
    matrices = torch.zeros(4, side, side, dtype=bands.dtype)
    matrices.scatter_add_(2, source.expand(4, -1, -1), bands[:, None].expand(-1, side, -1))
    return matrices.to(device, dtype)


def band_filters() -> Tensor:
    """Zero-phase filters of four octave bands, low to high: [4, 43] float64. They sum to one impulse.

    The low-pass filter times its mirror image, and the rest of an impulse, split the spectrum in two halves without
    phase. Splitting the lower half again with the same pair, its taps spread to every 2nd, then every 4th sample, makes
    the octaves.
    """
    low = _convolve(SYM2, SYM2.flip(0)) / 2  # 7 taps, half-band
    impulse = torch.zeros_like(low)
    impulse[len(low) // 2] = 1
    high = impulse - low

    rest, bands = torch.ones(1, dtype=low.dtype), []
    for spread in (1, 2, 4):
        bands.append(_convolve(rest, _spread(high, spread)))
        rest = _convolve(rest, _spread(low, spread))
    bands.append(rest)
    reach = len(rest) // 2
    return torch.stack([functional.pad(band, [reach - len(band) // 2] * 2) for band in reversed(bands)])


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    """Full convolution of two short filters."""
    return functional.conv1d(a.view(1, 1, -1), b.flip(0).view(1, 1, -1), padding=len(b) - 1).flatten()


def _spread(taps: Tensor, step: int) -> Tensor:
    """Zeros between the taps, so that they act on every `step`-th sample."""
    spread = taps.new_zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread
