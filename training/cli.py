"""The two ways to call a program: from a command line, and as a Python function.

A user's mistake is one line on stderr and exit status 2 there, and a UserError here; it is told of flags there and of
arguments here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING
from typing import Any, ParamSpec, TypeVar

import click

from dnnlib.cli import user_errors
from dnnlib.errors import RunFailed, UserError
from kd_plugin.config.click_flags import options_from, plain_flag
from kd_plugin.config.schema import options_of
from kd_plugin.errors import KDError, command_line, nearest
from training.failures import explained

__all__ = ["from_python", "function", "plain_values", "script", "with_arguments"]

O = TypeVar("O")  # a dataclass of options
P = ParamSpec("P")
R = TypeVar("R")


def script(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a click callback: errors of host and plug-in end the program with their message, which names flags."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context(silent=True)
        parameters = [] if context is None else context.command.params
        with command_line(), _machine_failures(name for parameter in parameters for name in parameter.opts):
            return command(*args, **kwargs)

    return user_errors(KDError)(wrapped)


def function(record: type, *others: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that does what a script does: errors, those of the plug-in too, are UserError or RunFailed,
    and their messages name arguments.

    Args:
        record: a dataclass of its options.
        others: flags that it takes besides.
    """

    def decorate(body: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(body)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            keys = [item.key for item in options_of(record)]
            try:
                with command_line(), _machine_failures([*map(plain_flag, keys), *others]):
                    return body(*args, **kwargs)
            except (UserError, KDError) as error:
                raise UserError(with_arguments(str(error))) from error
            except RunFailed as error:
                raise RunFailed(with_arguments(str(error))) from error

        return wrapped

    return decorate


def from_python(record: type[O], arguments: Mapping[str, Any]) -> O:
    """The options of a program from a function's keywords; paths are taken too.

    Raises:
        UserError, KDError: an unknown or a missing keyword, a value of another type or out of range.
    """
    known = {item.key: item for item in options_of(record)}
    given = plain_values(arguments)
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"unknown argument '{unknown[0]}'{nearest(unknown[0], known)}")
    if missing := [key for key, item in known.items() if item.default is MISSING and given.get(key) is None]:
        raise UserError(f"{plain_flag(missing[0])} is missing")
    return options_from(record, given)


def plain_values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """By key: `class_` is 'class', paths are texts, and None stands for what was not given."""
    return {
        name.removesuffix("_"): os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in arguments.items()
        if value is not None
    }


def with_arguments(message: str) -> str:
    """`--kd-view=clean` becomes `kd_view='clean'`, `--class` `class_`."""

    def argument(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        name = "class_" if name == "class" else name
        if match[2] is None:
            return name
        return f"{name}={match[2] if re.fullmatch(r'-?[0-9.e-]+', match[2]) else repr(match[2])}"

    return re.sub(r"--([a-z][a-z0-9-]*[a-z0-9])(?:=(\S+?)(?=[:;,.)]*(?:\s|$)))?", argument, message)


@contextmanager
def _machine_failures(flags: Iterable[str]) -> Iterator[None]:
    """A full disk or memory is one line too.

    Args:
        flags: that the program takes.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        line = "" if isinstance(error, RunFailed) else explained(error, flags)
        if not line:
            raise
        raise RunFailed(line) from error
