"""LeCam regularisation: pull D's scores towards earlier ones, against overfitting small sets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_utils.ranks import Ranks

__all__ = ["LeCam"]


class LeCam:
    """Pulls each real score towards the running mean of fake scores, and each fake score towards that of real ones.

        R = mean (D(x) - a_F)^2 + mean (D(G(z)) - a_R)^2

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", equations 3 and 5.
    The authors' code clips: a real score already below a_F, or a fake one above a_R, costs nothing there. Differs
    from both in that the running means start at the first batch's, and not at 0.

    Args:
        weight: of R in D's loss; the authors' is .3 for the hinge loss on CIFAR, .01 for StyleGAN2.
        device: of the scores.
        decay: of the running means, a step.
    """

    def __init__(self, weight: float, device: torch.device, decay: float = 0.99) -> None:
        self.weight, self.decay = weight, decay
        self._means = torch.zeros(2, dtype=torch.float32, device=device)  # real, fake
        self._started = False
        self._sums = torch.zeros(3, dtype=torch.float32, device=device)  # of this step: real, fake, how many of each

    def penalty(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """R, a scalar; 0 in the first step, before there is a mean. Records the scores [N, 1]."""
        count = torch.full([], real_logits.numel(), dtype=torch.float32, device=self._sums.device)
        sums = (real_logits.detach().float().sum(), fake_logits.detach().float().sum(), count)
        self._sums += torch.stack(sums)
        if not self._started:
            return (real_logits * 0).sum()
        mean_real, mean_fake = self._means.to(real_logits.dtype)
        return (real_logits - mean_fake).square().mean() + (fake_logits - mean_real).square().mean()

    def step(self, ranks: Ranks) -> None:
        """End a training step: update the running means with this step's scores of all processes."""
        total = ranks.sum(self._sums)
        now = total[:2] / total[2]
        self._means = now.lerp(self._means, self.decay) if self._started else now
        self._started = True
        self._sums = torch.zeros_like(self._sums)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self._means.clone(), "started": self._started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._means.copy_(state["means"])
        self._started = state["started"]
