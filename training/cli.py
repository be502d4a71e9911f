"""The two ways to call a program: from a command line, and as a Python function.

A user's mistake is one line on stderr and exit status 2 there, and a UserError here; it is told of flags there and of
arguments here.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING
from typing import Any, ParamSpec, TypeVar

import click

from dnnlib.cli import user_errors
from dnnlib.errors import RunFailed, UserError
from kd_plugin.config.click_flags import at_home, no_value, options_from, plain_flag
from kd_plugin.config.schema import options_of
from kd_plugin.errors import KDError, command_line, nearest
from training.failures import explained
from training.precision import unchanged_torch

__all__ = ["arguments_of", "from_python", "function", "given_values", "script", "warn", "with_arguments"]

O = TypeVar("O")  # a dataclass of options
P = ParamSpec("P")
R = TypeVar("R")
ArgumentNames = Mapping[str, str]  # by flag
_KEYWORDS = {"class": "class_"}  # a word of the language
_ARGUMENTS: ContextVar[ArgumentNames] = ContextVar("arguments")  # of the call that runs
_RUNNING = threading.Lock()


def script(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a click callback: errors of host and plug-in end the program with their message, which names flags."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context(silent=True)
        parameters = [] if context is None else context.command.params
        with command_line(), _machine_failures(name for parameter in parameters for name in parameter.opts):
            return command(*args, **kwargs)

    return user_errors(KDError)(wrapped)


def function(arguments: Callable[[], ArgumentNames]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that does what a script does: errors, those of the plug-in too, are UserError or RunFailed,
    and their messages name arguments.

    Args:
        arguments: gives the names of the function's arguments, by flag.
    """

    def decorate(body: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(body)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            names = arguments()
            token = _ARGUMENTS.set(names)
            try:
                values: dict[str, Any] = {name: _plain(value) for name, value in kwargs.items()}
                _require_usable(values, set(names.values()))
                with command_line(), _machine_failures(names), _alone(), unchanged_torch():
                    return body(*args, **values)  # type: ignore[arg-type]
            except (UserError, KDError) as error:
                raise UserError(with_arguments(str(error), names)) from error
            except RunFailed as error:
                raise RunFailed(with_arguments(str(error), names)) from error
            finally:
                _ARGUMENTS.reset(token)

        return wrapped

    return decorate


def arguments_of(record: type) -> ArgumentNames:
    """By flag, of a dataclass of options."""
    return {plain_flag(item.key): _KEYWORDS.get(item.key, item.key) for item in options_of(record)}


def warn(notes: Iterable[str]) -> None:
    """In the body of such a function: notes as Python warnings, at the line that called the function."""
    for note in notes:
        warnings.warn(with_arguments(note, _ARGUMENTS.get()), stacklevel=4)  # above: this, the body, the decorator


def from_python(record: type[O], arguments: Mapping[str, Any]) -> O:
    """The options of a program from a function's keywords.

    Raises:
        UserError, KDError: a missing keyword, a value of another type or out of range.
    """
    given = given_values(arguments)
    for item in options_of(record):
        if item.default is MISSING and given.get(item.key) is None:
            raise UserError(f"{plain_flag(item.key)} is missing")
    return options_from(record, given)


def given_values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """By key: `class_` is 'class'."""
    keys = {keyword: key for key, keyword in _KEYWORDS.items()}
    return {keys.get(name, name): value for name, value in arguments.items()}


def with_arguments(message: str, names: ArgumentNames) -> str:
    """`--kd-view=clean` becomes `kd_view='clean'`, for the flags in `names`.

    A command in a message (`python evaluate.py --data=...`) stays one, as does what only looks like a flag.
    """

    def argument(match: re.Match[str]) -> str:
        command, flag, value = match["command"], match["flag"], match["value"]
        if command or flag not in names:
            return match[0]
        if value is None:
            return names[flag]
        as_it_is = re.fullmatch(r"-?[0-9.e-]+|'.*'", value)
        return f"{names[flag]}={value if as_it_is else repr(value)}"

    return re.sub(
        r"(?P<command>\b\w+\.py(?: --\S+)+)|(?<![\w/.'-])(?P<flag>--[a-z][a-z0-9-]*[a-z0-9])"
        r"(?:=(?P<value>'[^']*'|\S+?)(?=[:;,.?)]*(?:\s|$)))?",
        argument,
        message,
    )


def _plain(value: Any) -> Any:
    """A path is a text, and `~/` the user's folder."""
    return at_home(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _require_usable(arguments: Mapping[str, Any], known: Iterable[str]) -> None:
    """
    Raises:
        UserError: an argument that is unknown, or a text that can be no value.
    """
    for name, value in arguments.items():
        if name not in known:
            raise UserError(f"unknown argument '{name}'{nearest(name, known)}")
        if isinstance(value, str) and (came := no_value(value)):
            raise UserError(f"{name}: {came} was given; leave it out or give a value")


@contextmanager
def _alone() -> Iterator[None]:
    """
    Raises:
        UserError: another thread is in such a block: both would draw from the process's random generators.
    """
    if not _RUNNING.acquire(blocking=False):
        raise UserError("another call is running in this process; start them one after the other, or in processes")
    try:
        yield
    finally:
        _RUNNING.release()


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
