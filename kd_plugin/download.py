"""Downloading files into the cache: complete, checked, resumable, with errors that say what to do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from kd_plugin.errors import KDError, first_line

__all__ = ["cache_dir", "download", "sha256_of"]

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SEC = 30.0  # without a byte
_PAUSES_SEC = (1.0, 4.0)  # before the second and the third try
_AGAIN = frozenset({408, 416, 429, 500, 502, 503, 504})  # answers that another try may change


def cache_dir() -> Path:
    """$KD_CACHE, else $XDG_CACHE_HOME/kd_plugin, else ~/.cache/kd_plugin. It need not exist yet."""
    if folder := os.environ.get("KD_CACHE"):
        return Path(folder).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "kd_plugin"


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    url: str,
    filename: str,
    *,
    sha256: str | None = None,
    problem_of: Callable[[Path], str] = lambda path: "",
    what: str,
    instead: str,
) -> Path:
    """The file's path in the cache; fetched, with a progress bar on stderr, only if it is not there yet.

    It arrives as FILE.part and is renamed when it is complete and checked. An interrupted transfer continues where it
    stopped, at the next attempt or in the next run, if the server supports it and still has the same file. Processes
    that need the same file wait for one of them to fetch it. If no checksum is published, that of the first
    download is kept beside the file and compared at every later use.

    Args:
        url: where it comes from.
        filename: its name in `cache_dir()`.
        sha256: hex digest that the content must have.
        problem_of: without a checksum: says what is wrong with the content, "" for nothing; called at the first use.
        what: the thing, for messages: "OpenAI CLIP ViT-B/32".
        instead: what the user can do by hand, for messages.

    Raises:
        KDError: no connection, another content than expected, or a cache that cannot be written.
    """
    path = cache_dir() / filename
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(path, ".lock")):
            if not path.is_file():
                _fetch(url, path, sha256, problem_of, what)
            _check(path, sha256, problem_of, what)
    except _Failed as error:
        raise KDError(f"{what}: could not download {url} ({error}); put it at {path}, or {instead}") from error
    except OSError as error:
        raise KDError(
            f"{what}: cannot write to the cache {path.parent} ({error.strerror or error}); set KD_CACHE to a folder "
            f"that can be written and has room, or {instead}"
        ) from error
    return path


class _Failed(Exception):
    """An attempt that did not deliver a complete file. `again`: whether another attempt may."""

    def __init__(self, reason: str, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _fetch(url: str, path: Path, sha256: str | None, problem_of: Callable[[Path], str], what: str) -> None:
    part = _beside(path, ".part")
    for pause in (*_PAUSES_SEC, None):
        try:
            _transfer(url, part, what)
            digest = sha256_of(part)
            problem = problem_of(part) if sha256 in (None, digest) else f"SHA-256 {digest}, expected {sha256}"
            if problem:
                _discard(part)
                raise _Failed(f"it sent another file: {problem}")
            break
        except _Failed as error:
            if pause is None or not error.again:
                raise
            time.sleep(pause)
    if sha256 is None:
        _beside(path, ".sha256").write_text(f"{digest}\n")
    os.replace(part, path)
    _discard(part)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".etag").unlink(missing_ok=True)


def _transfer(url: str, part: Path, what: str) -> None:
    """Brings FILE.part to its full length, from where it ends.

    Raises:
        _Failed: the server did not answer, refused, or stopped before the end. What came stays for the next try.
    """
    etag = _beside(part, ".etag")
    with _answer(url, part, etag) as response:
        have, total = _position(response)
        if have == 0 and (tag := response.headers.get("ETag")):
            etag.write_text(tag)
        with part.open("r+b" if have else "wb") as file:
            file.truncate(have)
            file.seek(have)
            have += _copy(response, file, have, total, what)
    if total is not None and have < total:
        raise _Failed(f"the transfer ended after {have} of {total} bytes")


@contextlib.contextmanager
def _answer(url: str, part: Path, etag: Path) -> Iterator[HTTPResponse]:
    """The server's answer to a request for the missing part: that part, or everything if it cannot resume."""
    headers = {"User-Agent": "kd_plugin"}
    # Without its tag it is unknown whether the server's file is still the same one.
    if part.is_file() and part.stat().st_size and etag.is_file():
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": etag.read_text()}
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SEC) as response:
            yield response
    except HTTPError as error:
        if error.code == 416:  # what is here is longer than the file, or it has changed
            _discard(part)
        raise _Failed(f"HTTP {error.code} {error.reason}", again=error.code in _AGAIN) from error
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise _Failed(str(getattr(error, "reason", error)) or type(error).__name__) from error
    except ValueError as error:  # UnicodeError too
        raise _Failed(f"it is not an address ({first_line(error)})", again=False) from error


def _position(response: HTTPResponse) -> tuple[int, int | None]:
    """The offset at which the content starts, and the length of the whole file if the server states it."""
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        if not first.isdigit():
            raise _Failed("it sent a part of the file without saying which")
        return int(first), int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _copy(response: HTTPResponse, file: BinaryIO, have: int, total: int | None, what: str) -> int:
    copied = 0
    with tqdm(total=total, initial=have, desc=what, unit="B", unit_scale=True, leave=False) as bar:
        while chunk := response.read1(_CHUNK_BYTES):  # what has come, so that a stall loses nothing
            file.write(chunk)
            copied += len(chunk)
            bar.update(len(chunk))
    return copied


def _check(path: Path, sha256: str | None, problem_of: Callable[[Path], str], what: str) -> None:
    """Compares with the published checksum, else with that of the first use, which is kept beside the file."""
    digest, kept = sha256_of(path), _beside(path, ".sha256")
    if sha256 is None and not kept.is_file():  # put there by hand
        if problem := problem_of(path):
            raise KDError(f"{what}: {path} is another file ({problem}); delete it and run again")
        kept.write_text(f"{digest}\n")
    expected = sha256 or kept.read_text().strip()
    if digest != expected:
        others = "" if sha256 else f" and {kept.name}"
        raise KDError(
            f"{what}: {path} is damaged or another file (SHA-256 {digest}, expected {expected}); delete it{others} "
            "and run again"
        )
