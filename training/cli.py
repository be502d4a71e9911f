"""Error reporting of the scripts: a user's mistake is one line on stderr and exit status 2, without a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import click

from dnnlib.cli import user_errors
from dnnlib.errors import RunFailed
from kd_plugin.errors import KDError, command_line
from training.failures import explained

__all__ = ["script"]

P = ParamSpec("P")
R = TypeVar("R")


def script(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a click callback: errors of host and plug-in end the program with their message, which names flags."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with command_line(), _machine_failures():
            return command(*args, **kwargs)

    return user_errors(KDError)(wrapped)


@contextmanager
def _machine_failures() -> Iterator[None]:
    """A full disk or memory ends the program with one line too."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        context = click.get_current_context(silent=True)
        parameters = [] if context is None else context.command.params
        line = explained(error, [name for parameter in parameters for name in parameter.opts])
        if not line:
            raise
        raise RunFailed(line) from error
