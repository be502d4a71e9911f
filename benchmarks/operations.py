"""How many operations does a piece of work hand to the device? A GPU at small sizes waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["operations"]


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not op.is_view and "_unsafe_view" not in str(op)  # views are a matter of the CPU
        return op(*args, **(kwargs or {}))


def operations(work: Callable[[], object]) -> int:
    """Of one call, backward passes included, views not. Its random draws are always the same."""
    with torch.random.fork_rng(devices=[]), _Counter() as counter:
        torch.manual_seed(0)
        work()
    return counter.count
