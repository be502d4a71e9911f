"""How strong should distillation be? As strong as a fraction of the adversarial game, at every moment of a run."""

from __future__ import annotations

import dataclasses
import math

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
        self.ratio: float | None = None  # the running mean

    def __call__(self, distilled: Distilled, adversarial: Tensor | None) -> Distilled:
        """
        Raises:
            KDError: no adversarial loss.
        """
        if adversarial is None:
            raise KDError("--kd-balance: call kd(adversarial=loss) with the loss of D that distillation is added to")
        now = float(summed(gradient_ratio(distilled, adversarial))) / world()
        if 0 < now < math.inf:  # NaN is not
            self.ratio = now if self.ratio is None else self.decay * self.ratio + (1 - self.decay) * now
        scale = 1.0 if self.ratio is None else min(max(self.fraction / self.ratio, LEAST), MOST)
        terms = {**distilled.terms, "scale": distilled.total.new_tensor(scale)}
        return dataclasses.replace(distilled, total=distilled.total * scale, terms=terms)
