"""The host's side of KDError: something the user gave cannot be used."""

from __future__ import annotations

__all__ = ["RunFailed", "UserError"]


class UserError(ValueError):
    """A user's mistake. The message is one line: what came, what was expected, what to do.

    Scripts print it without a traceback and exit with 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot go on, through no mistake in what it was given. One line as well; scripts exit with 1."""
