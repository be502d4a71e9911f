"""The files in a zip or a folder, accessed by number."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

__all__ = ["FileTable", "open_table"]

HASHED_BYTES = 256 << 20  # folders up to this size are checksummed by content
HIDDEN = "hidden"
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "index.json")  # the last one is generate.py's


class FileTable:
    """Files below a root, by number, in the order of their names.

    Columns rather than objects: a million files must not weigh a gigabyte.

    Attributes:
        names: UTF-8, relative to the root, with forward slashes.
        sizes: in bytes.
        crcs: CRC-32 of the contents; 0 in a folder of more than HASHED_BYTES.
        companion: the content of the requested companion file, b"" if there is none.
        companion_root: the folder it lies in, "" or "name/": what it says of files is relative to that.
        skipped: how many other files there are, by suffix; those of the system and hidden ones under "hidden".
    """

    companion: bytes
    companion_root: str
    skipped: Counter[str]
    names: np.ndarray
    sizes: np.ndarray
    crcs: np.ndarray

    def read(self, number: int) -> bytes:
        """The content of a file.

        Raises:
            OSError, zipfile.BadZipFile, zlib.error: it cannot be read, or is not what its checksum says.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.names)

    def name(self, number: int) -> str:
        return bytes(self.names[number]).decode("utf-8", "surrogateescape")

    def _set_columns(self, rows: list[tuple[Any, ...]], further: int = 0) -> list[np.ndarray]:
        """Sort rows of (name, size, crc, ...) by name; returns the `further` columns."""
        rows.sort()
        columns = list(zip(*rows, strict=True)) or [()] * (3 + further)
        self.names = np.array([name.encode("utf-8", "surrogateescape") for name in columns[0]], np.bytes_)
        self.sizes, self.crcs = np.array(columns[1], np.int64), np.array(columns[2], np.uint32)
        return [np.array(column, np.int64) for column in columns[3:]]


class _ZipTable(FileTable):
    """Read by offset: the zip's directory is parsed once, and not again by every loader process."""

    def __init__(self, path: Path, suffixes: tuple[str, ...], companion: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._owner, self._lock = -1, threading.Lock()
        with zipfile.ZipFile(path) as archive:
            files = {info: _with_slashes(info.filename) for info in archive.infolist() if not info.is_dir()}
            _require_different(files.values())
            wanted = {info: name for info, name in files.items() if _is_wanted(name, suffixes)}
            for info in wanted:
                if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"'{info.filename}' is encrypted or neither stored nor deflated")
            beside = _companion(files.items(), companion)
            self.companion = b"" if beside is None else archive.read(beside)
        self.companion_root = "" if beside is None else files[beside][: -len(companion)]
        self.skipped = _count_skipped((name for info, name in files.items() if info not in wanted), companion)
        rows = [
            (name, info.file_size, info.CRC, info.header_offset, info.compress_size, info.compress_type)
            for info, name in wanted.items()
        ]
        self._offsets, self._packed_sizes, self._methods = self._set_columns(rows, 3)

    def read(self, number: int) -> bytes:
        with self._lock:
            file = self._handle()
            file.seek(int(self._offsets[number]))
            header = file.read(30)  # the member's own: it ends with the lengths of its name and its extra field
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile("damaged zip entry")
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
            packed = file.read(int(self._packed_sizes[number]))
        stored = self._methods[number] == zipfile.ZIP_STORED
        content = packed if stored else zlib.decompress(packed, -zlib.MAX_WBITS)
        if zlib.crc32(content) != self.crcs[number]:
            raise zipfile.BadZipFile("damaged zip entry, wrong checksum")
        return content

    def _handle(self) -> BinaryIO:
        """This process's own: a forked loader process shares its parent's position in the file."""
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner = self._path.open("rb"), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_file", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file, self._lock = None, threading.Lock()


class _FolderTable(FileTable):
    def __init__(self, root: Path, suffixes: tuple[str, ...], companion: str) -> None:
        self._root = root
        above = len(os.path.join(root, ""))
        files = {entry: entry.path[above:].replace(os.sep, "/") for entry in _walk(root)}
        wanted = {entry: name for entry, name in files.items() if entry.is_file() and _is_wanted(name, suffixes)}
        sizes = [entry.stat().st_size for entry in wanted]
        hashed = sum(sizes) <= HASHED_BYTES
        crcs = [zlib.crc32(Path(entry.path).read_bytes()) if hashed else 0 for entry in wanted]
        self._set_columns(list(zip(wanted.values(), sizes, crcs, strict=True)))
        beside = _companion(files.items(), companion)
        self.companion = b"" if beside is None else Path(beside.path).read_bytes()
        self.companion_root = "" if beside is None else files[beside][: -len(companion)]
        self.skipped = _count_skipped((name for entry, name in files.items() if entry not in wanted), companion)

    def read(self, number: int) -> bytes:
        return (self._root / self.name(number)).read_bytes()


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder but folders. Links are followed, each folder is entered once: a loop ends."""
    pending, seen = [os.fspath(root)], set[tuple[int, int]]()
    while pending:
        folder = pending.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                else:
                    yield entry


def _companion(files: Iterable[tuple[Any, str]], name: str) -> Any:
    """The file called `name` at the root, else the only one below it: people zip the folder that holds their set."""
    companions = {path: file for file, path in files if path.rpartition("/")[2] == name and not _is_hidden(path)}
    return companions.get(name) or (next(iter(companions.values())) if len(companions) == 1 else None)


def _count_skipped(names: Iterable[str], companion: str) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for name in names:
        path = PurePosixPath(name)
        if _is_hidden(name) or path.name.lower() in SYSTEM_FILES:
            kinds[HIDDEN] += 1
        elif path.name != companion:
            kinds[path.suffix.lower() or path.name] += 1
    return kinds


def _require_different(names: Iterable[str]) -> None:
    """
    Raises:
        zipfile.BadZipFile: two members of a zip have one name; a folder cannot hold both.
    """
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 1))
    if count > 1:
        raise zipfile.BadZipFile(f"it holds {count} members called '{name}'; zip the folder anew")


def _with_slashes(name: str) -> str:
    """Some Windows programs write backslashes into a zip, against the format's rules."""
    return name.replace("\\", "/")


def _is_hidden(name: str) -> bool:
    """Hidden files, and the shadow files that macOS adds to a zip."""
    parts = name.split("/")  # a path object takes 5 µs: seconds, with a million files
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts)


def _is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not _is_hidden(name)


def open_table(path: Path, suffixes: tuple[str, ...], companion: str) -> FileTable:
    """The files with one of `suffixes` (lower case) anywhere in a zip or below a folder.

    Safe to use from several threads, from forked processes and, pickled, from others.

    Args:
        path: the zip or folder.
        suffixes: any spelling of their case is taken.
        companion: name of a small file to read as well, from the root or from the one folder that has it.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        OSError, zipfile.BadZipFile: it is not a zip, or cannot be read.
    """
    table = _FolderTable if path.is_dir() else _ZipTable
    return table(path, suffixes, companion)
