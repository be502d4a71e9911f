"""Errors and common options of command-line scripts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import click

from dnnlib.errors import RunFailed, UserError

__all__ = ["count_seeds", "parse_seeds", "user_errors"]

MOST_SEEDS, LARGEST_SEED = 1_000_000, 2**32 - 1

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


def parse_seeds(text: str, flag: str = "--seeds", *, once: bool = True) -> list[int]:
    """'0-31' or '1,5,7-9' -> the seeds, each once unless `once` is False.

    Raises:
        UserError: something else, a seed that is too large, or too many of them; names `flag`.
    """
    if (count := count_seeds(text, flag)) > MOST_SEEDS:
        raise UserError(f"{flag}: {count} seeds were given, at most {MOST_SEEDS} are taken at a time")
    parts = (_range_of_seeds(part, flag) for part in text.split(","))
    seeds = list(itertools.chain.from_iterable(parts))
    return list(dict.fromkeys(seeds)) if once else seeds


def count_seeds(text: str, flag: str = "--seeds") -> int:
    """How many were given, those that were given twice counted twice."""
    return sum(len(_range_of_seeds(part, flag)) for part in text.split(","))


def _range_of_seeds(text: str, flag: str) -> range:
    text = text.strip()
    first, dash, last = text.partition("-")
    if not _is_number(first) or (dash and not _is_number(last)) or (dash and int(last) < int(first)):
        raise UserError(f"{flag}: '{text}' is not a seed or a range of seeds; give e.g. 0-31 or 1,5,7-9")
    if int(last or first) > LARGEST_SEED:
        raise UserError(f"{flag}: {last or first} was given; a seed is a number from 0 to {LARGEST_SEED}")
    return range(int(first), int(last or first) + 1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
