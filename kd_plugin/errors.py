"""The errors the plug-in raises, and how it suggests the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["CaptureError", "KDError", "LayerError", "PromptError", "TeacherError", "first_line", "nearest"]


class KDError(ValueError):
    """Something the user gave cannot be used. The message says what came, what was expected and what to do."""


class LayerError(KDError):
    """The named layer is not in the discriminator, or its output cannot serve as a student feature."""


class CaptureError(KDError):
    """Distillation was asked for, but no features were captured (or only for one of real and fake)."""


class TeacherError(KDError):
    """The teacher cannot be found, read or used."""


class PromptError(KDError):
    """The prompts are missing, empty, too long or unknown to the teacher. `text` is the one at fault, if it is one."""

    def __init__(self, message: str, text: str | None = None) -> None:
        super().__init__(message)
        self.text = text


def nearest(name: str, options: Iterable[str], n: int = 3, exhaustive: bool = True) -> str:
    """`"; nearest: 'b4.fc', 'b4.conv'"`, or (`exhaustive`) all the options where nothing is similar and they are few.

    Made to be appended to an error message; empty where there is nothing to say.
    """
    known = list(options)
    close = difflib.get_close_matches(name, known, n=n, cutoff=0.5)
    if close:
        return "; nearest: " + ", ".join(f"'{option}'" for option in close)
    if exhaustive and 0 < len(known) <= 12:
        return "; known: " + ", ".join(f"'{option}'" for option in known)
    return ""


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that may follow; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
