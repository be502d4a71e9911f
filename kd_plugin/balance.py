"""Weighting: each term times its weight, and, if balanced, scaled relative to the adversarial gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from kd_plugin.diagnostics import ratio_of, squared_norms
from kd_plugin.distributed import summed
from kd_plugin.errors import KDError
from kd_plugin.types import Distilled

__all__ = ["Balance", "weighted"]

LEAST, MOST = 1e-6, 1e6  # of the factor: beyond, one of the two gradients has vanished
EVERY = 16  # calls: measuring takes two more backward passes through what made the outputs


def weighted(
    terms: Mapping[str, Tensor | Mapping[str, Tensor]], weights: Mapping[str, float], outputs: tuple[Tensor, ...]
) -> Distilled:
    """The weighted sum of at least one term.

    Args:
        terms: unweighted scalars by name, or a term's parts, whose mean is the term.
        weights: by name.
        outputs: the tensors at which gradients are measured.
    """
    scalars = {name: value if isinstance(value, Tensor) else _mean(value) for name, value in terms.items()}
    parts = {
        f"{name}/{part}": value
        for name, values in terms.items()
        if not isinstance(values, Tensor)
        for part, value in values.items()
    }
    first, *others = (weights[name] * value for name, value in scalars.items())
    logged = {name: value.detach().float() for name, value in {**scalars, **parts}.items()}
    return Distilled(sum(others, first), logged, outputs)


def _mean(parts: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(tuple(parts.values())).mean()


class Balance:
    """Scales a step's distillation so that its gradient at the tapped feature is `fraction` of the adversarial one.

    total <- total * fraction / r, with r the running mean of |d total / d f| / |d adversarial / d f|

    No fixed weight suits both ends of a run: the ratio of the same term was seen to fall from 0.81 to 0.14. With
    several processes r is that of the joint batch, so all of them use the same factor.

    Source: the adaptive weight of VQGAN (Esser et al. 2021), equation 7. Differs from it in: a running mean instead of
    the ratio of a single step, which is noisy.

    Args:
        fraction: above 0.
        advice: the error message if the adversarial loss is missing: how to pass it.
        label: the name under which the factor is reported.
        lowers: whether a larger ratio is scaled down too; otherwise `fraction` is only a minimum.
        every: measure in each of the first `every` calls, then once in `every` calls; in between, the running mean
            stands.
        decay: of the running mean, per measurement.
    """

    def __init__(
        self,
        fraction: float,
        advice: str,
        label: str = "scale",
        lowers: bool = True,
        every: int = EVERY,
        decay: float = 0.9,
    ) -> None:
        self.fraction, self.advice, self.label, self.every, self.decay = fraction, advice, label, every, decay
        self._least = LEAST if lowers else 1.0
        self._calls = 0
        self._ratio = torch.tensor(math.nan)  # the running mean; NaN before the first measurement
        self._noted: list[Tensor] = []  # of the parts of the step so far
        self._noted_parts: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """The running mean (None before the first measurement) and the calls. Waits for an accelerator."""
        ratio = float(self._ratio)
        return {"ratio": None if math.isnan(ratio) else ratio, "calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ratio = torch.tensor(math.nan if state["ratio"] is None else state["ratio"])
        self._calls = state["calls"]

    def __call__(self, distilled: Distilled, adversarial: Tensor | None) -> Distilled:
        """
        Raises:
            KDError: the adversarial loss is missing, or has no graph.
        """
        measurable = torch.is_grad_enabled() and bool(distilled.outputs)  # otherwise values are only looked at
        loss = self._checked(adversarial, measurable)
        if measurable and self._due:
            self._observe(squared_norms(distilled, loss.mean()))  # official code keeps it as [N, 1]
        if torch.is_grad_enabled():
            self._calls += 1
        scale = self._factor(self._ratio.to(distilled.total.device))
        return dataclasses.replace(
            distilled, total=distilled.total * scale, terms={**distilled.terms, self.label: scale.float()}
        )

    def _checked(self, adversarial: Tensor | None, needs_graph: bool) -> Tensor:
        if adversarial is None:
            raise KDError(self.advice)
        if not isinstance(adversarial, Tensor) or (needs_graph and not adversarial.requires_grad):
            came = "has no graph" if isinstance(adversarial, Tensor) else f"is a {type(adversarial).__name__}"
            raise KDError(f"the adversarial loss {came}; give the tensor itself, not its .item() or .detach()")
        return adversarial

    def scale(self, squares: Tensor) -> Tensor:
        """The factor where the host carries the gradients, which are seen only while it is in its backward pass.

        Args:
            squares: squared norms of the distillation and the adversarial gradient of this block, [2]; used before
                anything was measured, and those of this process only.
        """
        ratio = self._ratio.to(squares)
        return self._factor(torch.where(ratio.isnan(), ratio_of(squares), ratio)).float()

    def note(self, squares: Tensor, own: Collection[str], parts: Collection[str]) -> None:
        """Include the squared norms of the gradients in some parts of a step, [2]; measured when all were noted."""
        self._noted.append(squares)
        self._noted_parts.update(own)
        if self._noted_parts != set(parts):
            return
        if self._due:
            self._observe(torch.stack(self._noted).sum(0))
        self._calls += 1
        self.begin_step()

    def begin_step(self) -> None:
        """Forget the parts of a step that was not completed."""
        self._noted.clear()
        self._noted_parts.clear()

    @property
    def _due(self) -> bool:
        return self._calls < self.every or self._calls % self.every == 0

    def _factor(self, ratio: Tensor) -> Tensor:
        return torch.where(ratio.isnan(), 1.0, (self.fraction / ratio).clamp(self._least, MOST))

    def _observe(self, squares: Tensor) -> None:
        """The new running mean, computed on the device: reading a number on the CPU would stall every step."""
        now = ratio_of(summed(squares))
        before = self._ratio.to(now)
        after = torch.where(before.isnan(), now, self.decay * before + (1 - self.decay) * now)
        self._ratio = torch.where((now > 0) & now.isfinite(), after, before)
