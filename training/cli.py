"""Error reporting of the scripts: a user's mistake is one line on stderr and exit status 2, without a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dnnlib.cli import user_errors
from kd_plugin.errors import KDError, command_line

__all__ = ["script"]

P = ParamSpec("P")
R = TypeVar("R")


def script(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a click callback: errors of host and plug-in end the program with their message, which names flags."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with command_line():
            return command(*args, **kwargs)

    return user_errors(KDError)(wrapped)
