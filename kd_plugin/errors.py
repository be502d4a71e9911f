"""The errors the plug-in raises, how they name an option, and how they suggest the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = [
    "CaptureError",
    "KDError",
    "LayerError",
    "PromptError",
    "TeacherError",
    "arg",
    "command_line",
    "first_line",
    "flag",
    "nearest",
]


class KDError(ValueError):
    """The user gave something that cannot be used. The message says what came, what was expected and what to do."""


class LayerError(KDError):
    """The named layer is not in the discriminator, or its output cannot serve as a student feature."""


class CaptureError(KDError):
    """Distillation was requested, but no features were captured (or only for one of real and fake)."""


class TeacherError(KDError):
    """The teacher cannot be found, read or used."""


class PromptError(KDError):
    """The prompts are missing, empty, too long or unknown to the teacher. `text` is the offending prompt, if any."""

    def __init__(self, message: str, text: str | None = None) -> None:
        super().__init__(message)
        self.text = text


_ON_COMMAND_LINE: ContextVar[bool] = ContextVar("on_command_line", default=False)
_NO_VALUE = object()


@contextmanager
def command_line() -> Iterator[None]:
    """In this block messages name flags (`--kd-view=clean`); outside, Python arguments (`view='clean'`)."""
    token = _ON_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _ON_COMMAND_LINE.reset(token)


def flag(option: str) -> str:
    """The command-line flag of an option of the distillation: `view` -> `--kd-view`; of the teacher itself `--kd`."""
    return "--kd" if option == "teacher" else f"--kd-{option.replace('_', '-')}"


def arg(option: str, value: Any = _NO_VALUE) -> str:
    """An option as the user writes it: `view='clean'` in Python, `--kd-view=clean` on the command line.

    Without a value: `view=` and `--kd-view`.
    """
    if _ON_COMMAND_LINE.get():
        return flag(option) if value is _NO_VALUE else f"{flag(option)}={value}"
    return f"{option}=" if value is _NO_VALUE else f"{option}={value!r}"


def nearest(name: str, options: Iterable[str], n: int = 3, exhaustive: bool = True) -> str:
    """`"; nearest: 'b4.fc', 'b4.conv'"`, to be appended to an error message.

    If nothing is similar: all options, if `exhaustive` and there are at most 12; otherwise an empty string.
    """
    known = list(options)
    close = difflib.get_close_matches(name, known, n=n, cutoff=0.5)
    if close:
        return "; nearest: " + ", ".join(f"'{option}'" for option in close)
    if exhaustive and 0 < len(known) <= 12:
        return "; known: " + ", ".join(f"'{option}'" for option in known)
    return ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
