"""When a step distils and how strongly: counts steps and images, and draws each step's coin."""

from __future__ import annotations

from typing import Any

import torch

from kd_plugin.distributed import world

__all__ = ["Schedule"]


class Schedule:
    """Distils in one of `every` steps, with a factor that grows from 0 to `every` over the first `warmup` kimg, and
    falls to 0 over the first `until` kimg, after which nothing is distilled.

    Steps left out weigh upon the one that is not, as with lazy regularisation (Karras et al. 2020), so that a weight
    means the same whatever `every` is.

    Args:
        warmup, until: in thousands of real images, counted over all processes; 0: no growth, no end.
        every: in steps of D.
        p: the coin's chance of falling on True.
        seed: of the coin; the same on all ranks.
    """

    def __init__(self, warmup: float, until: float, every: int, p: float, seed: int) -> None:
        self.warmup, self.until, self.every, self.p = warmup, until, every, p
        self.steps, self.images = 0, 0
        self.active = False  # whether the step that was begun last distils
        self.coin = False
        self._begun = self._host_begins = False
        self._draws = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on every device

    def begin_step(self, by_host: bool = True) -> None:
        """A step begins. Once the host has called this, only the host begins steps."""
        self._begun, self._host_begins = True, by_host
        self.steps += 1
        ended = self.until > 0 and self.images >= self.until * 1000
        self.active = (self.steps - 1) % self.every == 0 and not ended
        if self.active:
            # rand < 1: p = 1 is always, p = 0 never
            self.coin = bool(torch.rand((), generator=self._draws) < self.p)

    def enter(self) -> None:
        """Begin a step unless one has begun."""
        if not self._begun:
            self.begin_step(by_host=False)

    def leave(self) -> None:
        """End a step, unless the host begins steps itself."""
        self._begun = self._host_begins

    def count(self, real: int) -> None:
        """Count the real images of a call, in this process."""
        self.images += real * world() * self.every

    @property
    def factor(self) -> float:
        """The factor of D's terms, now that the real images of this call are counted."""
        grown = 1.0 if self.warmup == 0 else min(self.images / (self.warmup * 1000), 1.0)
        left = 1.0 if self.until == 0 else max(1 - self.images / (self.until * 1000), 0.0)
        return self.every * grown * left

    def state_dict(self) -> dict[str, Any]:
        return {"coin": self._draws.get_state(), "steps": self.steps, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draws.set_state(state["coin"].cpu())  # torch.load(map_location="cuda") moves it
        self.steps, self.images = state["steps"], state["images"]
