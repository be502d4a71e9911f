"""LSUN's database files: encoded images by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from training.data.sources.base import Content, Source

__all__ = ["Lmdb"]


class Lmdb(Source):
    """In the order of the keys."""

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        try:
            import lmdb
        except ImportError:
            raise UserError("--source: reading an lmdb needs lmdb, which is not installed: pip install lmdb") from None
        try:
            self._database: Any = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
            with self._database.begin() as transaction:
                self._keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise UserError(f"--source: '{path}' cannot be read as an lmdb: {error}") from None

    @classmethod
    def is_at(cls, path: Path) -> bool:
        return (path / "data.mdb").is_file()

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, number: int) -> str:
        return self._keys[number].decode(errors="replace")

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        with self._database.begin() as transaction:
            for number in numbers:
                yield bytes(transaction.get(self._keys[number]))
