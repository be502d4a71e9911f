"""What autograd's graph tells of the layers of a discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

__all__ = ["Graph"]


class Graph:
    """Nodes are the `grad_fn` of tensors.

    Args:
        images: leaves that require a gradient.
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._leaves = [image.view_as(image).grad_fn.next_functions[0][0] for image in images]  # type: ignore[union-attr]
        self._depends: dict[Any, bool] = dict.fromkeys(self._leaves, True)

    def behind(self, node: Any) -> set[Any]:
        """The nodes that a gradient goes through from here, this one included."""
        waiting, found = [node], {node}
        for now in waiting:
            fresh = [before for before, _ in now.next_functions if before is not None and before not in found]
            found.update(fresh)
            waiting.extend(dict.fromkeys(fresh))
        return found

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
