"""Reading TorchScript archives: recognised by their content, and never unpickled by Python."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["is_torchscript", "load_torchscript"]


def is_torchscript(path: Path) -> bool:
    """Whether it is a zip with the constants of compiled code, which torch.jit.save writes and torch.save does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def load_torchscript(path: Path, device: torch.device | str) -> Any:
    """The module in an archive. Nothing of it has run yet; torch's own unpickler makes tensors and numbers only.

    Raises:
        RuntimeError: the archive is damaged.
    """
    with warnings.catch_warnings():
        # torch prefers torch.export, which has no replacement for an archive that others made. OpenAI's are such.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
