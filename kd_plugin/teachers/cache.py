"""A cache of embeddings of images that are shown repeatedly, by key."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["EmbeddingCache"]

BLOCK = 8 << 20  # bytes that are allocated at once: 4096 rows of CLIP ViT-B/32
LIMIT = 1 << 30  # bytes in memory; what is beyond lies in a temporary file


class EmbeddingCache:
    """Rows [E] by whole-number key. 2 KB a row of CLIP ViT-B/32 (E = 512): a million images are 2 GB.

    Args:
        width: E.
        limit: in bytes of the CPU's memory; rows beyond are mapped from a temporary file that goes with this object.
    """

    def __init__(self, width: int, limit: int = LIMIT) -> None:
        self.width = width
        self._block = max(BLOCK // (4 * width), 1)  # rows
        self._blocks_in_memory = limit // (4 * width * self._block)
        self._slots: dict[int, int] = {}
        self._blocks: list[Tensor] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes_in_memory(self) -> int:
        return min(len(self._blocks), self._blocks_in_memory) * self._block * self.width * 4

    def missing(self, keys: Tensor) -> list[int]:
        """The positions in `keys` [N] of those that are not cached, each key once."""
        firsts: dict[int, int] = {}
        for place, key in enumerate(keys.tolist()):
            if key not in self._slots:
                firsts.setdefault(key, place)
        return list(firsts.values())

    def put_missing(self, keys: Tensor, rows: Tensor) -> None:
        """Of rows [N, E], store those whose keys [N] are not cached."""
        new = self.missing(keys)
        self.put(keys[new], rows[new])

    def put(self, keys: Tensor, rows: Tensor) -> None:
        """Store rows [N, E] under new, distinct keys [N]."""
        for key, row in zip(keys.tolist(), rows.detach().cpu(), strict=True):
            slot = self._slots[key] = len(self._slots)
            if slot // self._block == len(self._blocks):
                self._blocks.append(self._new_block())
            self._blocks[slot // self._block][slot % self._block] = row

    def get(self, keys: Tensor) -> Tensor:
        """[N, E] on the CPU; every key must be cached."""
        slots = [self._slots[key] for key in keys.tolist()]
        if len(self._blocks) == 1 and self._blocks_in_memory:
            return self._blocks[0][slots]
        return torch.stack([self._blocks[slot // self._block][slot % self._block] for slot in slots])

    def _new_block(self) -> Tensor:
        if len(self._blocks) < self._blocks_in_memory:
            return torch.empty(self._block, self.width)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kd-embeddings-")
        file = Path(self._folder.name) / f"{len(self._blocks)}.bin"
        size = self._block * self.width
        return torch.from_file(str(file), shared=True, size=size, dtype=torch.float32).view(self._block, self.width)
