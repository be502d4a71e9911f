"""Writing results: files appear complete or not at all, and each run gets its own folder."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from dnnlib.errors import UserError

LONGEST_NAME = 80  # of a description in a folder's name: file systems take 255 bytes, some tools 100

__all__ = [
    "errors_name",
    "files_by_kimg",
    "is_called",
    "make_run_dir",
    "next_run_name",
    "require_free",
    "require_writable",
    "write_atomic",
]


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file so that a reader always finds either the complete old one or the complete new one.

    Args:
        path: the file to make or replace. Its folder must exist.
        content: the bytes; or text, stored as UTF-8; or a function that writes the file whose path it is given. That
            path lies in the same folder and keeps the suffix, by which writers such as Pillow choose the format.

    Raises:
        OSError: it cannot be written, and names the file; what was there stays.
    """
    with errors_name(path):
        _write_atomic(Path(path), content)


def _write_atomic(target: Path, content: bytes | str | Callable[[Path], object]) -> None:
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


@contextlib.contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError in this block names the file that was to be written.

    torch.save turns some of them into a RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        chain: BaseException | None = error
        while chain is not None and not (isinstance(chain, OSError) and chain.errno):
            chain = chain.__cause__ or chain.__context__
        if chain is None:
            raise
        raise OSError(chain.errno, chain.strerror, os.fspath(path)) from error


def _flush_to_disk(path: Path, flags: int = os.O_RDWR) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def next_run_name(outdir: str | os.PathLike[str], description: str) -> str:
    """`"00003-cats-auto"` where 00002 is the highest number so far. Creates nothing.

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


def files_by_kimg(folder: str | os.PathLike[str], before: str, after: str) -> dict[float, Path]:
    """The files called `before`, a number of kimg (000012 or 000012.480) and `after`, in its order."""
    name = re.compile(rf"{re.escape(before)}(\d{{6,}}(?:\.\d{{3}})?){re.escape(after)}")
    found = {float(match[1]): path for path in Path(folder).iterdir() if (match := name.fullmatch(path.name))}
    return dict(sorted(found.items()))


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
    try:
        os.lstat(wanted)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        problem = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{flag}: '{folder}' cannot be a folder ({problem}); choose another {flag}") from None
    existing = next(path for path in itertools.chain([wanted], wanted.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"{flag}: '{folder}' cannot be a folder, '{existing}' is a file; choose another {flag}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{flag}: cannot write to '{existing}' ({error.strerror}); choose another {flag}") from None


def require_free(path: Path, flag: str) -> None:
    """
    Raises:
        UserError: a file cannot be written there, because it is a folder or its name is too long; names `flag`.
    """
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise UserError(f"{flag}: '{path}' cannot be a file ({error.strerror})") from None
    if is_folder:
        raise UserError(f"{flag}: '{path}' is a folder; give another name")
