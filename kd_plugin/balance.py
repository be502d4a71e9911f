"""How strong should distillation be? As strong as a fraction of the adversarial game, at every moment of a run."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from kd_plugin.errors import KDError
from kd_plugin.measuring import gradient_ratio
from kd_plugin.processes import summed, world
from kd_plugin.records import Distilled

__all__ = ["Balance"]

LEAST, MOST = 1e-6, 1e6  # of the factor: beyond, one of the two gradients has vanished


class Balance:
    """Scales a step's distillation so that its gradient at the tapped feature is `fraction` of the adversarial one.

    total <- total * fraction / r, with r the running mean of |d total / d f| / |d adversarial / d f|

    No fixed weight suits both ends of a run: the ratio of one and the same term was seen to go from .81 to .14. In a
    run of several processes r is that of all of them, so that their losses stay one.

    Source: the adaptive weight of VQGAN (Esser et al. 2021), equation 7. Differs from it in: a running mean in place of
    the single step's ratio, which jumps.

    Args:
        fraction: above 0.
        decay: of the running mean, a step.
    """

    def __init__(self, fraction: float, decay: float = 0.9) -> None:
        self.fraction, self.decay = fraction, decay
        self._ratio: Tensor | None = None  # the running mean, where the losses are; NaN before there is one

    @property
    def ratio(self) -> float | None:
        """The running mean; None before the first step. Waits for an accelerator."""
        ratio = math.nan if self._ratio is None else float(self._ratio)
        return None if math.isnan(ratio) else ratio

    @ratio.setter
    def ratio(self, value: float | None) -> None:
        self._ratio = None if value is None else torch.tensor(value)

    def __call__(self, distilled: Distilled, adversarial: Tensor | None) -> Distilled:
        """
        Raises:
            KDError: no adversarial loss.
        """
        if adversarial is None:
            raise KDError("--kd-balance: call kd(adversarial=loss) with the loss of D that distillation is added to")
        # All of it on the device: a number that the CPU asked for would stop it once a step.
        now = summed(gradient_ratio(distilled, adversarial)) / world()
        before = torch.full_like(now, math.nan) if self._ratio is None else self._ratio.to(now)
        moved = torch.where(before.isnan(), now, self.decay * before + (1 - self.decay) * now)
        self._ratio = torch.where((now > 0) & now.isfinite(), moved, before)
        scale = torch.where(self._ratio.isnan(), 1.0, (self.fraction / self._ratio).clamp(LEAST, MOST))
        return dataclasses.replace(
            distilled, total=distilled.total * scale, terms={**distilled.terms, "scale": scale.float()}
        )
