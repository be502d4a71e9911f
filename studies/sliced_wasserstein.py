"""A judge without a network: the sliced Wasserstein distance between patches of images, at every scale.

Source: Karras et al., "Progressive Growing of GANs" (ICLR 2018), section 5. Differs from it in: sides down to 16 pixels
whatever the size of the images, and as many patches of real as of generated images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["sliced_wasserstein"]

PATCH, PATCHES = 7, 128  # side of a patch in pixels; patches of an image at each scale
SMALLEST = 16  # side of the last level of the pyramid
DIRECTIONS, REPEATS = 128, 4
LEAST = 0.1  # pixel values: the deviation of a level that shows nothing
BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


@torch.no_grad()
def sliced_wasserstein(fakes: Tensor, reals: Tensor, seed: int = 0) -> float:
    """1000 times the mean over scales.

    Of either set, patches are taken at other places: 50 images compared with themselves have 20, 490 have 7 (photos of
    cats at 32 pixels). Brightness and contrast of the patches are normalised: it does not see those.

    Args:
        fakes, reals: [N, 3, R, R] and [M, 3, R, R], R a power of two of at least 16. Of the larger set, the first
            min(N, M) images are used.
        seed: of patches and directions.
    """
    generator = torch.Generator().manual_seed(seed)
    count = min(len(fakes), len(reals))
    pairs = zip(laplacian_pyramid(fakes[:count].float()), laplacian_pyramid(reals[:count].float()), strict=True)
    distances = [_distance(patches(fake, generator), patches(real, generator), generator) for fake, real in pairs]
    return 1000 * sum(distances) / len(distances)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """[N, 3, R, R] -> what each level adds to the next one, R, R/2, ..., and the last level, 16 pixels wide."""
    levels = []
    while images.shape[2] > SMALLEST:
        smaller = _blurred(images)[:, :, ::2, ::2]
        upsampled = torch.zeros_like(images)
        upsampled[:, :, ::2, ::2] = smaller
        levels.append(images - 4 * _blurred(upsampled))
        images = smaller
    return [*levels, images]


def _blurred(images: Tensor) -> Tensor:
    channels = images.shape[1]
    images = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    for shape in ((1, 1, 5, 1), (1, 1, 1, 5)):
        images = functional.conv2d(images, BINOMIAL.view(shape).expand(channels, 1, *shape[2:]), groups=channels)
    return images


def patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """[N * PATCHES, 3 * 49] at random places, with mean 0 and variance 1 of each channel."""
    number, channels, side, _ = images.shape
    windows = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [N, 3, h, w, 7, 7]
    rows = torch.arange(number).repeat_interleave(PATCHES)
    y, x = torch.randint(side - PATCH + 1, (2, len(rows)), generator=generator)
    chosen = windows[rows, :, y, x]
    mean, deviation = chosen.mean(dim=(0, 2, 3), keepdim=True), chosen.std(dim=(0, 2, 3), keepdim=True)
    return ((chosen - mean) / deviation.clamp_min(LEAST)).reshape(len(rows), channels * PATCH**2)


def _distance(a: Tensor, b: Tensor, generator: torch.Generator) -> float:
    means = []
    for _ in range(REPEATS):
        directions = functional.normalize(torch.randn(a.shape[1], DIRECTIONS, generator=generator), dim=0)
        means.append((a @ directions).sort(dim=0).values.sub((b @ directions).sort(dim=0).values).abs().mean().item())
    return sum(means) / REPEATS
