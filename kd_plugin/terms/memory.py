"""Rows of earlier steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Memory"]


class Memory(nn.Module):
    """The latest rows that it was given, by name. Part of the state, so that a continued run has the same ones.

    Args:
        size: number of rows, at least 1.
        shapes: of one row, by name.
    """

    def __init__(self, size: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._size, self._shapes = size, dict(shapes)
        self._widths = [math.prod(shape) for shape in shapes.values()]
        self._given = 0  # rows so far; on the host: asking the device for it would stop it in every step
        self.register_buffer("rows", torch.zeros(size, sum(self._widths)))

    rows: Tensor  # a ring: row number n lies at n % size

    @torch.no_grad()
    def joined(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows [N, ...] followed by those in memory, by name. They are in memory from then on.

        Args:
            rows: N of each name, without gradient.
        """
        new = torch.cat([rows[name].flatten(1) for name in self._shapes], dim=1)
        both = torch.cat([new, self.rows[: self._given].to(new)])
        self._given += len(new)
        latest = new[-self._size :].to(self.rows)
        places = torch.arange(self._given - len(latest), self._given, device=self.rows.device) % self._size
        self.rows.index_copy_(0, places, latest)
        parts = both.split_with_sizes(self._widths, dim=1)
        return {name: part.reshape(-1, *shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}

    def get_extra_state(self) -> dict[str, int]:
        return {"given": self._given}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self._given = state["given"]

    def extra_repr(self) -> str:
        return f"size={self._size}"
