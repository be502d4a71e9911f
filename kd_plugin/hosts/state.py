"""The state of a distiller, in a file beside each official pickle, which loads without this package."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kd_plugin.errors import KDError
from kd_plugin.files import write_whole
from kd_plugin.interface import AnyDistiller

__all__ = ["PickleWithState", "load_state", "state_path"]


def state_path(pickle_path: str | Path) -> Path:
    """`network-snapshot-000200.pkl` -> `network-snapshot-000200.kd.pt`."""
    return Path(pickle_path).with_suffix(".kd.pt")


class PickleWithState:
    """The module `pickle`, whose `dump` also writes the state next to what it dumps.

    Args:
        state: returns the state.
    """

    def __init__(self, state: Callable[[], Any]) -> None:
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(pickle, name)

    def dump(self, content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        pickle.dump(content, file, *args, **kwargs)
        if isinstance(name := getattr(file, "name", None), str):
            state = io.BytesIO()
            torch.save(self._state(), state)
            write_whole(state_path(name), state.getvalue())


def load_state(path: str | Path, kd: AnyDistiller) -> None:
    """
    Raises:
        KDError: the file cannot be read, or belongs to other options.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        kd.load_state_dict(state)
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError) as error:
        raise KDError(
            f"{path}: the distillation saved beside --resume cannot be used ({str(error).splitlines()[0]}); give the "
            "options of that run, or move the file away to begin with new heads"
        ) from None
