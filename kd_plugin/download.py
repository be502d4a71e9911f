"""Where do downloaded files live, and what does the user read when a download fails?"""

from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch.hub

from kd_plugin.errors import KDError

__all__ = ["cache_dir", "download", "sha256_of"]

_CHUNK_BYTES = 1 << 20


def cache_dir() -> Path:
    """$KD_CACHE, else $XDG_CACHE_HOME/kd_plugin, else ~/.cache/kd_plugin. It need not exist yet."""
    if own := os.environ.get("KD_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "kd_plugin"


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def download(url: str, filename: str, *, sha256: str | None = None, what: str, instead: str) -> Path:
    """The file's path in the cache; fetched (with a progress bar on stderr) only if it is not there yet.

    It arrives under a temporary name and is renamed when complete, so an interrupted download leaves nothing behind
    and processes that fetch the same file at once do not disturb each other. Without `sha256`, a connection that the
    server cuts short goes unnoticed: check such a file when opening it.

    Args:
        url: where it comes from.
        filename: its name in `cache_dir()`.
        sha256: hex digest that the content must have; also checked when the file is already there.
        what: the thing, for messages: "OpenAI CLIP ViT-B/32".
        instead: what the user can do by hand, for messages.

    Raises:
        KDError: no connection, another content than expected, or a cache that cannot be written.
    """
    path = cache_dir() / filename
    if path.is_file():
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            raise KDError(
                f"{what}: {path} is damaged or another file (SHA-256 {found}, expected {sha256}); "
                "delete it and run again"
            )
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise KDError(f"{what}: could not download {url} ({_reason(error)}); {instead}") from error
    except RuntimeError as error:  # torch.hub's word for a wrong hash
        raise KDError(f"{what}: {url} sent something else than expected ({error}); {instead}") from error
    except OSError as error:
        raise KDError(
            f"{what}: cannot write to the cache {path.parent} ({_reason(error)}); set KD_CACHE to a folder that can be "
            f"written and has room, or {instead}"
        ) from error
    return path


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
