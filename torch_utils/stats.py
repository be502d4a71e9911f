"""Statistics of what a training step reports, gathered on the device and read once a tick, so that no step waits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.ranks import ALONE, Ranks

__all__ = ["Stat", "Stats", "Stopwatch"]


@dataclass(frozen=True)
class Stat:
    """The number of values, their mean, and their standard deviation (0 for a single one)."""

    num: int
    mean: float
    std: float = 0.0


class Stats:
    """Statistics by name."""

    def __init__(self) -> None:
        self._moments: dict[str, Tensor] = {}  # sum and sum of squares
        self._counts: dict[str, int] = {}

    def report(self, name: str, values: Tensor) -> None:
        """Add every element of `values` to the statistic `name`."""
        values = values.detach().flatten().to(torch.float64 if values.device.type == "cpu" else torch.float32)
        moments = torch.stack([values.sum(), values.dot(values)])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def __contains__(self, name: object) -> bool:
        """Whether it was reported since the last `drain`."""
        return name in self._counts

    def drain(self, ranks: Ranks = ALONE) -> dict[str, Stat]:
        """The statistics since the last call, of all processes together."""
        moments_here = {name: (self._counts[name], *moments.tolist()) for name, moments in self._moments.items()}
        self._moments.clear()
        self._counts.clear()
        everyones = ranks.gather(moments_here)
        stats = {}
        for name in moments_here:
            parts = [theirs[name] for theirs in everyones if name in theirs]
            count, total, squares = (sum(part[i] for part in parts) for i in range(3))
            mean = total / count
            deviation = math.sqrt(max(squares / count - mean**2, 0)) if count > 1 else 0.0
            stats[name] = Stat(count, mean, deviation)
        return stats


class Stopwatch:
    """Seconds spent inside `running()` blocks, on the device: CUDA work is timed by events, not by its launch."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begun

    def drain(self) -> float:
        """Seconds since the last call; waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds
