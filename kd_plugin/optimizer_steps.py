"""Being told of the steps of optimisers, which belong to the host."""

from __future__ import annotations

import functools
import weakref
from typing import Any, Protocol

from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

__all__ = ["StepWatcher", "stop_watching", "watch_steps"]


class StepWatcher(Protocol):
    def before_step(self, optimizer: Optimizer) -> None:
        """An optimiser is about to make a step."""


_WATCHERS: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_steps(watcher: StepWatcher) -> None:
    """Of all optimisers of torch, until the watcher is gone."""
    _register()
    _WATCHERS.add(watcher)


def stop_watching(watcher: StepWatcher) -> None:
    _WATCHERS.discard(watcher)


@functools.cache
def _register() -> None:
    """One hook for all, which stays: torch iterates over its hooks, and removing one within a step would fail."""
    register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: Optimizer, *_arguments: Any) -> None:
    for watcher in list(_WATCHERS):
        watcher.before_step(optimizer)
