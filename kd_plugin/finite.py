"""Are numbers finite? Asked without making the CPU wait for an accelerator."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FiniteCheck"]


class FiniteCheck:
    """On the CPU the answer is there at once. On a CUDA device that of a call is given at the next one: by then it has
    arrived, and asking sooner would stop the device once a step."""

    def __init__(self) -> None:
        self._arriving: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, *tensors: Tensor) -> tuple[bool, ...]:
        """Whether all numbers are finite, tensor by tensor; on CUDA, those of the call before this one."""
        flags = torch.stack([tensor.detach().isfinite().all() for tensor in tensors])
        if flags.device.type != "cuda":
            return tuple(flags.tolist())
        before = self._arriving
        here = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
        here.copy_(flags, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record(torch.cuda.current_stream(flags.device))
        self._arriving = (here, arrival)
        if before is None:
            return (True,) * len(tensors)
        before[1].synchronize()
        return tuple(before[0].tolist())
