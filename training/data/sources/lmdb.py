"""LSUN's database files: encoded images by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from training.data.sources.base import Picture, Source

__all__ = ["Lmdb"]


class Lmdb(Source):
    """In the order of the keys."""

    def __init__(self, folder: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise UserError("--source: reading an lmdb needs lmdb, which is not installed: pip install lmdb") from None
        try:
            self._database: Any = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
            with self._database.begin() as transaction:
                self._keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise UserError(f"--source: '{folder}' cannot be read as an lmdb: {error}") from None

    @classmethod
    def is_at(cls, path: Path) -> bool:
        return (path / "data.mdb").is_file()

    @classmethod
    def open(cls, path: Path, split: str, fps: float | None) -> Source:
        return cls(path)

    def __len__(self) -> int:
        return len(self._keys)

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        with self._database.begin() as transaction:
            for number in numbers:
                key = self._keys[number]
                yield Picture(key.decode(errors="replace"), bytes(transaction.get(key)))
