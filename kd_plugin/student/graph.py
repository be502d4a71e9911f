"""What autograd's graph tells of a discriminator. Its nodes are the `grad_fn` of tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

__all__ = ["Graph", "last_parameter", "nodes_behind"]


def nodes_behind(node: Any, most: int | None = None) -> list[Any]:
    """The nodes that a gradient goes through from here, this one included, the nearest first; at most `most`."""
    found = {node: None}
    waiting = [node]
    for now in waiting:
        for before, _ in now.next_functions:
            if len(waiting) == most:
                return waiting
            if before is not None and before not in found:
                found[before] = None
                waiting.append(before)
    return waiting


def last_parameter(features: Tensor) -> nn.Parameter | None:
    """The parameter that a backward pass from these features reaches last, or nearly so; None without any."""
    nodes = [] if features.grad_fn is None else nodes_behind(features.grad_fn)
    leaves = (getattr(node, "variable", None) for node in reversed(nodes))  # images may be among them, for R1
    return next((leaf for leaf in leaves if isinstance(leaf, nn.Parameter)), None)


class Graph:
    """
    Args:
        images: leaves that require a gradient.
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        leaves = [image.view_as(image).grad_fn.next_functions[0][0] for image in images]  # type: ignore[union-attr]
        self._depends: dict[Any, bool] = dict.fromkeys(leaves, True)

    def depends(self, node: Any) -> bool:
        """Whether what the node made depends on an image."""
        waiting = [] if node is None else [node]
        while waiting:
            now = waiting[-1]
            before = [other for other, _ in now.next_functions if other is not None]
            unknown = [other for other in before if other not in self._depends]
            if unknown and now not in self._depends:
                waiting.extend(unknown)
                continue
            self._depends.setdefault(now, any(self._depends[other] for other in before))
            waiting.pop()
        return node is not None and self._depends[node]
