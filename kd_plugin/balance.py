"""How strong should distillation be? As strong as a fraction of the adversarial game, at every moment of a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from kd_plugin.diagnostics import ratio_of, squared_pulls
from kd_plugin.distributed import summed
from kd_plugin.errors import KDError
from kd_plugin.types import Distilled

__all__ = ["Balance"]

LEAST, MOST = 1e-6, 1e6  # of the factor: beyond, one of the two gradients has vanished
EVERY = 16  # calls: measuring goes back through what made the outputs once more


class Balance:
    """Scales a step's distillation so that its gradient at the tapped feature is `fraction` of the adversarial one.

    total <- total * fraction / r, with r the running mean of |d total / d f| / |d adversarial / d f|

    No fixed weight suits both ends of a run: the ratio of one and the same term was seen to go from .81 to .14. In a
    run of several processes r is that of the joint batch, so that their losses stay one.

    Source: the adaptive weight of VQGAN (Esser et al. 2021), equation 7. Differs from it in: a running mean in place of
    the single step's ratio, which jumps.

    Args:
        fraction: above 0.
        how: how the caller is given the adversarial loss, for the message where it is not.
        term: the name under which the factor is reported.
        lowers: whether terms that pull harder than `fraction` are scaled down too; else it is the least pull only.
        every: after as many calls in a row, measures in one of them only; between, the running mean stands.
        decay: of the running mean, a measurement.
    """

    def __init__(
        self,
        fraction: float,
        how: str,
        term: str = "scale",
        lowers: bool = True,
        every: int = EVERY,
        decay: float = 0.9,
    ) -> None:
        self.fraction, self.how, self.term, self.every, self.decay = fraction, how, term, every, decay
        self._least = LEAST if lowers else 1.0
        self._calls = 0
        self._ratio = torch.tensor(math.nan)  # the running mean, where the losses are; NaN before there is one

    def state_dict(self) -> dict[str, Any]:
        """The running mean, None before there is one, and the calls. Waits for an accelerator."""
        ratio = float(self._ratio)
        return {"ratio": None if math.isnan(ratio) else ratio, "calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ratio = torch.tensor(math.nan if state["ratio"] is None else state["ratio"])
        self._calls = state["calls"]

    def __call__(self, distilled: Distilled, adversarial: Tensor | None) -> Distilled:
        """
        Raises:
            KDError: no adversarial loss.
        """
        if adversarial is None:
            raise KDError(self.how)
        if self._calls < self.every or self._calls % self.every == 0:
            self._ratio = self._moved(ratio_of(summed(squared_pulls(distilled, adversarial))))
        self._calls += 1
        ratio = self._ratio.to(distilled.total.device)
        scale = torch.where(ratio.isnan(), 1.0, (self.fraction / ratio).clamp(self._least, MOST))
        return dataclasses.replace(
            distilled, total=distilled.total * scale, terms={**distilled.terms, self.term: scale.float()}
        )

    def _moved(self, now: Tensor) -> Tensor:
        """All of it on the device: a number that the CPU asked for would stop it once a step."""
        before = self._ratio.to(now)
        moved = torch.where(before.isnan(), now, self.decay * before + (1 - self.decay) * now)
        return torch.where((now > 0) & now.isfinite(), moved, before)
