"""ADA: adapt the augmentation probability to how much the discriminator overfits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dnnlib.errors import UserError

__all__ = ["AdaController"]


class AdaController:
    """Moves the augmentation probability p until the mean of sign(D(real)) meets a target.

    The mean is 0 where D cannot tell reals from fakes and 1 where it is sure of every real: overfitting. Every
    `interval` steps p goes up by a fixed amount if the mean lies above the target, else down. It is held within [0,1]:
    without the upper bound it has been seen to run away, to 21.8 in the official code.

        controller.observe(D(augment(real)))                       # any number of times a step
        if controller.step(nimg=batch, all_reduce=sum_over_ranks):
            pipe.p.fill_(controller.p)

    Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3, heuristic r_t.

    Args:
        target: wanted mean of sign(D(real)), in [0,1].
        kimg: thousands of real images over which p can go from 0 to 1.
        interval: steps between adjustments.
        p: where to start, in [0,1].
        fixed: keep p as it is.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, target: float, kimg: float, p: float = 0.0, interval: int = 4, fixed: bool = False) -> None:
        if not 0 <= target <= 1:
            raise UserError(f"--target: expected a number from 0 to 1, the wanted mean of sign(D(real)), got {target}")
        if not 0 <= p <= 1:
            raise UserError(f"--p: expected a probability from 0 to 1, got {p}")
        if not kimg > 0:
            raise UserError(
                f"--ada-kimg: expected thousands of images > 0, got {kimg}; for a constant p use --aug=fixed"
            )
        if interval < 1:
            raise UserError(f"ada_interval: expected a number of steps >= 1, got {interval}")
        self.target, self.kimg, self.interval, self.fixed = target, kimg, interval, fixed
        self.p = float(p)
        self._steps = 0  # since the last adjustment, like all that follows
        self._nimg = 0
        self._signs: Tensor | None = None  # their sum over this rank's logits, float64 scalar on the device
        self._count = 0  # this rank's logits

    def observe(self, logits: Tensor) -> None:
        """Record D's logits for real images, any shape; NaN is undecided. Does not wait for the device."""
        if self.fixed:
            return
        signs = logits.detach().sign().sum(dtype=torch.float64)
        self._signs = signs if self._signs is None else self._signs.to(signs.device) + signs
        self._count += logits.numel()

    def step(self, nimg: int, all_reduce: Callable[[Tensor], Tensor] | None = None) -> bool:
        """Ends a training step; adjusts p at the end of every `interval`-th.

        Args:
            nimg: real images in this step, of all ranks.
            all_reduce: sums a tensor over all ranks and returns it; None for one process.

        Returns:
            Whether p was adjusted. It is the same on every rank.

        Raises:
            RuntimeError: no logits were observed since the last adjustment.
        """
        if self.fixed:
            return False
        self._steps += 1
        self._nimg += nimg
        if self._steps < self.interval:
            return False
        if self._signs is None:
            raise RuntimeError(
                f"AdaController: no logits observed in {self._steps} steps; call observe(D(real)) in each"
            )
        total, count = self._totals(all_reduce)
        excess = total / count - self.target
        if excess:
            self.p = min(max(self.p + math.copysign(self._nimg / (self.kimg * 1000), excess), 0.0), 1.0)
        self._steps, self._nimg, self._signs, self._count = 0, 0, None, 0
        return True

    def _totals(self, all_reduce: Callable[[Tensor], Tensor] | None) -> tuple[float, float]:
        """The sum of the signs and their number, over all ranks."""
        assert self._signs is not None
        sums = torch.stack([self._signs, torch.full_like(self._signs, self._count)])
        total, count = (all_reduce(sums) if all_reduce else sums).tolist()
        return total, count

    def state_dict(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> dict[str, Any]:
        """Plain numbers: p, and what was gathered since its last adjustment, on all ranks (`all_reduce` as in step)."""
        signs: float | None = None
        count = 0.0
        if self._signs is not None:
            signs, count = self._totals(all_reduce)
        return {"p": self.p, "steps": self._steps, "nimg": self._nimg, "signs": signs, "count": round(count)}

    def load_state_dict(self, state: dict[str, Any], first: bool = True) -> None:
        """Continues from `state_dict()`, p held within [0,1]. The sums go to the `first` rank, 0 to the others."""
        self.p = min(max(float(state["p"]), 0.0), 1.0)
        self._steps, self._nimg = state["steps"], state["nimg"]
        self._count = state["count"] if first else 0
        signs = state["signs"]
        self._signs = None if signs is None else torch.tensor(signs if first else 0.0, dtype=torch.float64)
