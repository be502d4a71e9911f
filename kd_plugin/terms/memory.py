"""Rows of earlier steps."""

from __future__ import annotations

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
        self._size = size
        self._given = 0  # rows so far; on the host: asking the device for it would stop it in every step
        self._buffer_of = {name: f"rows_{number}" for number, name in enumerate(shapes)}  # stages' names have dots
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, torch.zeros(size, *shapes[name]))

    @torch.no_grad()
    def joined(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows [N, ...] followed by those in memory, by name. They are in memory from then on.

        Args:
            rows: N of each name, without gradient.
        """
        both = {
            name: torch.cat([new, self.get_buffer(self._buffer_of[name])[: self._given].to(new)])
            for name, new in rows.items()
        }
        for name, new in rows.items():
            held = self.get_buffer(self._buffer_of[name])
            latest = new[-self._size :]
            places = torch.arange(self._given + len(new) - len(latest), self._given + len(new), device=held.device)
            held.index_copy_(0, places % self._size, latest.to(held))
        self._given += len(next(iter(rows.values())))
        return both

    def get_extra_state(self) -> dict[str, int]:
        return {"given": self._given}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self._given = state["given"]

    def extra_repr(self) -> str:
        return f"size={self._size}"
