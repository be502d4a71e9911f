"""Gradients between the backward pass and the optimiser: averaged over the processes, and freed of NaN."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from torch_utils.ranks import Ranks, unflatten_into

__all__ = ["NanWatch", "average_and_sanitize"]


def average_and_sanitize(parameters: Iterable[nn.Parameter], ranks: Ranks) -> Tensor:
    """Average the gradients over the processes in one message; NaN becomes 0 and infinity ±1e5, as in official code.

    Returns:
        A boolean scalar on the gradients' device: whether anything was not finite. The same in every process.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients[0].device.type == "cpu":
        ranks.average(gradients)
        # A sum is finite only if all its terms are, and takes no memory.
        bad = ~torch.stack([gradient.sum() for gradient in gradients]).isfinite().all()
        if bad:
            for gradient in gradients:
                _mend(gradient)
        return bad
    # On an accelerator it is calls that cost, and asking means waiting for it: all in one piece, mended in any case.
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    ranks.average([flat])
    bad = ~flat.isfinite().all()
    _mend(flat)
    unflatten_into(gradients, flat)
    return bad


def _mend(x: Tensor) -> None:
    torch.nan_to_num(x, nan=0, posinf=1e5, neginf=-1e5, out=x)


class NanWatch:
    """Counts training steps in which a gradient was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._in_step = torch.zeros([], dtype=torch.bool, device=device)
        self._streak = torch.zeros([], dtype=torch.int64, device=device)
        self._total = torch.zeros([], dtype=torch.int64, device=device)

    def note(self, bad: Tensor) -> None:
        """May be called several times per step. Does not wait for the device."""
        self._in_step |= bad

    def end_step(self) -> None:
        self._streak = (self._streak + 1) * self._in_step
        self._total += self._in_step
        self._in_step = torch.zeros_like(self._in_step)

    def streak(self) -> int:
        """The number of consecutive such steps up to now. Waits for the device."""
        return int(self._streak)

    def drain(self) -> int:
        """The number of such steps since the last call."""
        total = int(self._total)
        self._total.zero_()
        return total
