"""Writing files."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

__all__ = ["write_whole"]


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
