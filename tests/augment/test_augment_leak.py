"""Do augmentations leak into what the generator learns? Not below p = 0.8, and the tests see it where they must, at 1.

D sees augmented images only. A generator that emits augmented-looking images goes unpunished exactly if augmenting
them again gives the distribution of augmented reals. So the tests compare that of an honest generator (the reals
themselves) with that of a leaky one. Source: Karras et al. 2020, section 2.2 and appendix C.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.augment import AUGPIPES, AugmentPipe

COUNT = 4000
BOUND = 4.5  # standard errors: 7e-6 by chance, and the seeds are fixed


def _pipe(p: float, *transforms: str) -> AugmentPipe:
    pipe = AugmentPipe(**dict.fromkeys(transforms, 1))
    pipe.p.fill_(p)
    return pipe


def _pattern() -> Tensor:
    """A coloured picture without symmetry, [1,3,8,8]; smooth, so that resampling does not tell turned ones apart."""
    coarse = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(7)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (8, 8), mode="bicubic")


def _leaky_over_honest(pipe: AugmentPipe) -> float:
    """How much farther from the original D sees a leaky generator's images than an honest one's, in standard errors."""
    torch.manual_seed(0)
    original = _pattern().expand(COUNT, -1, -1, -1)
    honest, leaky = ((pipe(generated) - original).abs().mean(dim=(1, 2, 3)) for generated in (original, pipe(original)))
    return ((leaky.mean() - honest.mean()) / math.sqrt((leaky.var() + honest.var()) / COUNT)).item()


@pytest.mark.parametrize("transform", AUGPIPES["bgcfnc"])
def test_leak_is_seen_below_the_limit(transform: str) -> None:
    assert _leaky_over_honest(_pipe(0.79, transform)) > BOUND


@pytest.mark.parametrize("transform", ["xflip", "rotate90", "lumaflip", "hue"])
def test_leak_is_not_seen_at_certainty(transform: str) -> None:
    """The negative control: a transform always applied, with any element of its group equally likely, hides a leak."""
    assert abs(_leaky_over_honest(_pipe(1.0, transform))) < BOUND


def _seen_orientations(p: float) -> Tensor:
    """Row k: the mean image that D sees of a generator that only emits the pattern turned k times, [4, 64]."""
    torch.manual_seed(0)
    pipe = _pipe(p, "rotate90")
    pattern = _pattern()[:, :1]
    turned = [pattern.rot90(k, (2, 3)).expand(COUNT, -1, -1, -1) for k in range(4)]
    return torch.stack([pipe(images).mean(0).flatten() for images in turned])


def test_generator_that_matches_the_augmented_reals_is_upright() -> None:
    """The mixture of orientations that gives D the augmented reals' mean image is that of the reals: all upright."""
    means = _seen_orientations(0.79)
    torch.manual_seed(1)
    reals = _pipe(0.79, "rotate90")(_pattern()[:, :1].expand(COUNT, -1, -1, -1)).mean(0).flatten()
    mixture = torch.linalg.lstsq(means.T, reals).solution
    assert mixture.tolist() == pytest.approx([1, 0, 0, 0], abs=0.25)


def test_always_turning_makes_orientations_indistinguishable() -> None:
    certain, uncertain = (torch.linalg.svdvals(_seen_orientations(p)) for p in (1.0, 0.79))
    assert certain[1] < 0.05 * certain[0]  # one mean image, whatever the generator does
    assert uncertain[3] > 2 * certain[1]  # four that differ by more than sampling noise


@pytest.mark.parametrize("p", [0.4, 0.79])
def test_frequencies_of_the_eight_orientations(p: float) -> None:
    torch.manual_seed(0)
    pattern = _pattern()[0, 0]
    upright = [pattern.rot90(k) for k in range(4)]
    templates = torch.stack(upright + [image.flip(1) for image in upright]).flatten(1)
    seen = _pipe(p, "xflip", "rotate90")(pattern.expand(COUNT, 1, -1, -1)).flatten(1)
    frequency = torch.cdist(seen, templates).argmin(1).bincount(minlength=8) / COUNT
    turned = torch.tensor([1 - p + p / 4, p / 4, p / 4, p / 4])
    expected = torch.cat([turned * (1 - p / 2), turned * (p / 2)])
    assert ((frequency - expected).abs() < BOUND * (expected * (1 - expected) / COUNT).sqrt()).all()
    assert frequency.argmax() == 0  # below the limit the original stays the likeliest
