"""Reading and writing files."""

from __future__ import annotations

import os
import pickle
import shutil
import uuid
from pathlib import Path

__all__ = ["DAMAGED", "write_whole"]

# What torch.load(weights_only=True) raises for damaged files and those of another kind: its unpickler stops wherever
# the bytes make no sense to it.
DAMAGED = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, ImportError,
)  # fmt: skip


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all; a file that is replaced passes its permissions on.

    Args:
        path: in a folder that exists.
        content: of the file.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
