"""How files are written and read: a result appears whole or not at all, each run gets a folder of its own, and the
contents of a zip or a folder are taken by number."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import threading
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from dnnlib.errors import UserError

LONGEST_NAME = 80  # of a description in a folder's name: file systems take 255 bytes, some tools 100
HASHED_BYTES = 256 << 20  # folders up to this size are checksummed by content

__all__ = ["FileTable", "is_called", "make_run_dir", "next_run_name", "open_table", "require_writable", "write_atomic"]


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file so that whatever happens, a reader finds the old one or the new one, whole.

    Args:
        path: the file to make or replace. Its folder must exist.
        content: the bytes; or text, stored as UTF-8; or a function that writes the file whose path it is given. That
            path lies in the same folder and keeps the suffix, by which writers such as Pillow choose the format.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}.part{target.suffix}")
    try:
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        _flush_to_disk(partial)  # before the rename: some file systems store the new name first, the data later
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # Windows cannot open a folder; only the moment of the rename is at stake
        _flush_to_disk(target.parent, os.O_RDONLY)


def _flush_to_disk(path: Path, flags: int = os.O_RDWR) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def next_run_name(outdir: str | os.PathLike[str], description: str) -> str:
    """`"00003-cats-auto"` where 00002 is the highest number so far. Makes nothing.

    What does not belong in a file name becomes a dash; a long description is cut.
    """
    words = _safe_name(description)
    folder = Path(outdir)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    taken = [int(match.group(1)) for name in names if (match := re.match(r"(\d{5,})(-|$)", name))]
    number = f"{max(taken, default=-1) + 1:05d}"
    return f"{number}-{words}" if words else number


def is_called(run_dir: Path, description: str) -> bool:
    """Whether the folder was made by `make_run_dir` with this description."""
    return run_dir.name.partition("-")[2] == _safe_name(description)


def _safe_name(description: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", description)[:LONGEST_NAME].strip("-.")


def make_run_dir(outdir: str | os.PathLike[str], description: str, *, flag: str = "--outdir") -> Path:
    """Make and return the next run's folder. Programs started at the same time get different folders.

    Raises:
        UserError: the folder cannot be made; names `flag`.
    """
    folder = Path(outdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            run_dir = folder / next_run_name(folder, description)
            with contextlib.suppress(FileExistsError):
                run_dir.mkdir()
                return run_dir
    except OSError as error:
        raise UserError(f"{flag}: cannot make a folder in '{folder}' ({error.strerror})") from None


def require_writable(folder: str | os.PathLike[str], *, flag: str = "--outdir") -> None:
    """Check that `folder` can be made and written to, by writing; nothing is left behind, not even the folder.

    Raises:
        UserError: it cannot; names `flag`.
    """
    wanted = Path(folder).absolute()
    existing = next(path for path in itertools.chain([wanted], wanted.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"{flag}: '{folder}' cannot be a folder, '{existing}' is a file; choose another {flag}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{flag}: cannot write to '{existing}' ({error.strerror}); choose another {flag}") from None


class FileTable:
    """Files below a root, by number, in the order of their names.

    Columns rather than objects: a million files must not weigh a gigabyte.

    Attributes:
        names: UTF-8, relative to the root, with forward slashes.
        sizes: in bytes.
        crcs: CRC-32 of the contents; 0 in a folder of more than HASHED_BYTES.
        extras: contents of the extra files that were asked for and found.
    """

    names: np.ndarray
    sizes: np.ndarray
    crcs: np.ndarray
    extras: dict[str, bytes]

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

    def __init__(self, path: Path, suffixes: tuple[str, ...], extras: tuple[str, ...]) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._owner, self._lock = -1, threading.Lock()
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if _is_wanted(info.filename, suffixes)]
            for info in members:
                if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"'{info.filename}' is encrypted or neither stored nor deflated")
            self.extras = {name: archive.read(name) for name in extras if name in archive.NameToInfo}
        self._offsets, self._packed_sizes, self._methods = self._set_columns(
            [(i.filename, i.file_size, i.CRC, i.header_offset, i.compress_size, i.compress_type) for i in members], 3
        )

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
    def __init__(self, root: Path, suffixes: tuple[str, ...], extras: tuple[str, ...]) -> None:
        self._root = root
        paths = [Path(parent, name) for parent, _, names in os.walk(root) for name in names]
        wanted = [path for path in paths if _is_wanted(path.relative_to(root).as_posix(), suffixes)]
        sizes = [path.stat().st_size for path in wanted]
        hashed = sum(sizes) <= HASHED_BYTES
        crcs = [zlib.crc32(path.read_bytes()) if hashed else 0 for path in wanted]
        names = [path.relative_to(root).as_posix() for path in wanted]
        self._set_columns(list(zip(names, sizes, crcs, strict=True)))
        self.extras = {name: (root / name).read_bytes() for name in extras if (root / name).is_file()}

    def read(self, number: int) -> bytes:
        return (self._root / self.name(number)).read_bytes()


def _is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    """Not for hidden files, nor for the shadow files that macOS adds to a zip."""
    if not name.lower().endswith(suffixes):
        return False
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def open_table(path: Path, suffixes: tuple[str, ...], extras: tuple[str, ...] = ()) -> FileTable:
    """The files with one of `suffixes` (lower case) anywhere in a zip or below a folder.

    Safe to use from several threads, from forked processes and, pickled, from others.

    Args:
        path: the zip or folder.
        suffixes: any spelling of their case is taken.
        extras: names, from the root, of small files to read as well.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        OSError, zipfile.BadZipFile: it is not a zip, or cannot be read.
    """
    table = _FolderTable if path.is_dir() else _ZipTable
    return table(path, suffixes, extras)
