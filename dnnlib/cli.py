"""Errors and common options of command-line scripts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import click

from dnnlib.errors import RunFailed, UserError

__all__ = ["parse_seeds", "user_errors"]

P = ParamSpec("P")
R = TypeVar("R")


def user_errors(*others: type[Exception]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a click callback: UserError and `others` end the program with their message and status 2; RunFailed
    with status 1."""

    mistakes: tuple[type[Exception], ...] = (UserError, *others)

    def decorate(command: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(command)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return command(*args, **kwargs)
            except mistakes as error:
                _fail(error, 2)
            except RunFailed as error:
                _fail(error, 1)

        return wrapped

    return decorate


def _fail(error: Exception, status: int) -> NoReturn:
    failure = click.ClickException(str(error))
    failure.exit_code = status  # type: ignore[misc]
    raise failure from error


def parse_seeds(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """'0-31' or '1,5,7-9' -> a list of seeds; a click callback."""
    seeds: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise click.BadParameter(f"'{part.strip()}' is not a seed or a range of seeds; give e.g. 0-31 or 1,5,7-9")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds
