"""The errors of the trainer: a user's mistake, and a run that failed."""

from __future__ import annotations

__all__ = ["RunFailed", "UserError"]


class UserError(ValueError):
    """A user's mistake. The message is one line: what came, what was expected, what to do.

    Scripts print it without a traceback and exit with 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot continue, although its input was valid. The message is one line; scripts exit with status 1."""
