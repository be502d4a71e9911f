"""Whether a backward pass has already been where gradients are to go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kd_plugin.student.graph import nodes_behind

__all__ = ["Passage"]

_LOOKED_AT = 16  # nodes of the graph


class Passage:
    """Notices backward passes through tensors; one that builds a graph (R1) frees nothing and does not count."""

    def __init__(self) -> None:
        self._passed: list[Any] = []  # nodes of the graph

    def watch(self, tensor: Tensor) -> None:
        if (node := tensor.grad_fn) is not None:
            tensor.register_hook(lambda _: self._note(node))  # type: ignore[no-untyped-call]

    def _note(self, node: Any) -> None:
        if not torch.is_grad_enabled():
            self._passed.append(node)

    @property
    def freed(self) -> bool:
        """Whether a pass has freed what it went through. Asks the graph only if there was one."""
        return any(_lost(node) for start in self._passed for node in nodes_behind(start, _LOOKED_AT))


def _lost(node: Any) -> bool:
    """Whether the node's tensors are gone: reading them then raises "Trying to backward through the graph a second
    time"."""
    names = [name for name in dir(type(node)) if name.startswith("_saved_") or name == "saved_tensors"]
    try:
        for name in names:
            getattr(node, name)
    except RuntimeError:
        return True
    return False
