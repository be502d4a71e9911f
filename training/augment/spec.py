"""Switches and strengths of the ADA transforms (15 switches, 18 transforms: one is for four bands), and `--augpipe`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from dnnlib.errors import UserError
from kd_plugin.errors import nearest

__all__ = ["AUGPIPES", "AugmentSpec", "augpipe"]


@dataclass(frozen=True)
class AugmentSpec:
    """One multiplier per transform (its probability is multiplier x p; 0 = off), and the transforms' strengths.

    Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B, whose values
    are the defaults. Names are those of the official option table.

    Raises:
        ValueError: a number is negative or not finite, or `imgfilter_bands` are not four.
    """

    # Pixel blitting: no interpolation needed.
    xflip: float = 0
    rotate90: float = 0
    xint: float = 0
    xint_max: float = 0.125  # integer translation, fractions of the side
    # General geometry: needs resampling.
    scale: float = 0
    rotate: float = 0
    aniso: float = 0
    xfrac: float = 0
    scale_std: float = 0.2  # log2 of the factor
    rotate_max: float = 1  # half turns
    aniso_std: float = 0.2  # log2 of the factor
    xfrac_std: float = 0.125  # fractions of the side
    # Colour.
    brightness: float = 0
    contrast: float = 0
    lumaflip: float = 0
    hue: float = 0
    saturation: float = 0
    brightness_std: float = 0.2  # of images in [-1,1]
    contrast_std: float = 0.5  # log2 of the factor
    hue_max: float = 1  # half turns
    saturation_std: float = 1  # log2 of the factor
    # Image-space filtering.
    imgfilter: float = 0
    imgfilter_bands: Sequence[float] = (1, 1, 1, 1)  # multiplier per frequency band, low to high
    imgfilter_std: float = 1  # log2 of a band's gain
    # Image-space corruption.
    noise: float = 0
    cutout: float = 0
    noise_std: float = 0.1  # of images in [-1,1]
    cutout_size: float = 0.5  # fractions of the side

    def __post_init__(self) -> None:
        if len(self.imgfilter_bands) != 4:
            raise ValueError(f"imgfilter_bands: expected 4 multipliers, low to high, got {self.imgfilter_bands!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            for number in value if field.name == "imgfilter_bands" else (value,):
                if not (math.isfinite(number) and number >= 0):
                    raise ValueError(f"{field.name}: expected a finite number >= 0, got {number!r}")


_BLIT = ("xflip", "rotate90", "xint")
_GEOM = ("scale", "rotate", "aniso", "xfrac")
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")

AUGPIPES: dict[str, tuple[str, ...]] = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": (*_BLIT, *_GEOM),
    "bgc": (*_BLIT, *_GEOM, *_COLOR),
    "bgcf": (*_BLIT, *_GEOM, *_COLOR, "imgfilter"),
    "bgcfn": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise"),
    "bgcfnc": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise", "cutout"),
}
"""The values of `--augpipe`: the transforms that each name turns on at multiplier 1."""


def augpipe(name: str) -> dict[str, float]:
    """The keyword arguments of `AugmentPipe` for a value of `--augpipe`.

    Raises:
        UserError: the name is not in `AUGPIPES`.
    """
    if name not in AUGPIPES:
        raise UserError(f"--augpipe: unknown group of transforms '{name}'{nearest(name, AUGPIPES)}")
    return dict.fromkeys(AUGPIPES[name], 1.0)
