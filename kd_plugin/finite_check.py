"""Checking that values are finite without making the CPU wait for an accelerator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FiniteCheck"]


class FiniteCheck:
    """On the CPU the answer is there at once. On a CUDA device that of a call is given at the next one: by then it has
    arrived, and asking sooner would stop the device once a step."""

    def __init__(self) -> None:
        self._arriving: tuple[Tensor, torch.cuda.Event] | None = None

    def __getstate__(self) -> dict[str, None]:
        return {"_arriving": None}  # an event belongs to its process

    def __call__(self, numbers: Tensor) -> bool:
        """Whether all of them, and their sum, are finite; on CUDA, those of the call before this one."""
        total = numbers.detach().sum(dtype=torch.float32)  # one operation, where asking each number takes five
        if total.device.type != "cuda":
            return math.isfinite(total)
        before = self._arriving
        here = torch.empty((), pin_memory=True)
        here.copy_(total, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record(torch.cuda.current_stream(total.device))
        self._arriving = (here, arrival)
        if before is None:
            return True
        before[1].synchronize()
        return math.isfinite(before[0])
