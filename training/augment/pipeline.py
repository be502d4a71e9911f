"""The ADA pipeline: which transforms, in which order, with which probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.augment import color, corrupt, filter, geometry
from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

__all__ = ["AugmentPipe"]


class AugmentPipe(nn.Module):
    """Images [N,C,H,W] float -> images of the same shape, each transformed with its own draws.

    `pipe.p` (a buffer, saved with the state) scales the probability of every transform; an image that draws no
    transform is passed on bit for bit. At p = 0 the very tensor that came is returned. Twice differentiable.

    Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B. Held against
    the official implementation through `debug_percentile`; differs from it in: random numbers come from the CPU's
    generator.

    Args:
        spec: fields of `AugmentSpec`, e.g. `AugmentPipe(**augpipe("bgc"))` or `AugmentPipe(xflip=1, rotate=0.5)`.

    Raises:
        TypeError: unknown field.
        ValueError: a value out of range; see `AugmentSpec`.
    """

    p: Tensor

    def __init__(self, **spec: float | Sequence[float]) -> None:
        super().__init__()
        self.spec = AugmentSpec(**spec)  # type: ignore[arg-type]
        self.register_buffer("p", torch.ones(()))
        self._known_p: tuple[Tensor, int, float] | None = None

    def forward(self, images: Tensor, debug_percentile: float | None = None) -> Tensor:
        """Augments.

        Args:
            images: float [N,C,H,W] in [-1,1]; 1 or 3 channels where colour transforms are on.
            debug_percentile: a number in (0,1) replaces every draw by that percentile, whatever `p` is; see `Draws`.
        """
        p = self._probability()
        if p == 0 and debug_percentile is None:
            return images
        spec, draws = self.spec, Draws(len(images), p, debug_percentile)
        images = geometry.resample(images, geometry.draw_inverse(spec, draws, *images.shape[2:]))
        if spec.brightness or spec.contrast or spec.lumaflip or spec.hue or spec.saturation:
            images = color.apply_matrix(images, color.draw_matrix(spec, draws))
        if spec.imgfilter:
            images = filter.amplify(images, filter.draw_gains(spec, draws))
        if spec.noise:
            images = corrupt.add_noise(images, corrupt.draw_sigma(spec, draws))
        if spec.cutout:
            images = corrupt.cut_out(images, corrupt.draw_cutout(spec, draws))
        return images

    def __getstate__(self) -> dict[str, Any]:
        # A copy's buffer counts its changes anew, so what was known of the original's must not travel with it.
        return {**self.__dict__, "_known_p": None}

    def _probability(self) -> float:
        """`self.p` as a number. Read from the device only after it has changed: reading waits for the GPU's queue."""
        known = self._known_p
        if known is None or known[0] is not self.p or known[1] != self.p._version:
            self._known_p = known = (self.p, self.p._version, float(self.p))
        return known[2]
