"""The command line of a config dataclass: a flag for each field, under headings in --help."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kd_plugin.config.schema import flag_of, plain_type

__all__ = ["GroupedCommand", "add_flags", "named_option"]

F = TypeVar("F", bound=Callable[..., Any])  # a command
OTHERS = "Others"


class _GroupedOption(click.Option):
    """An option that knows its heading."""

    def __init__(self, *args: Any, group: str = OTHERS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose --help lists its options under their headings, in the order of their definition."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", OTHERS), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=32)


def named_option(*names: str, group: str, **kwargs: Any) -> Callable[[F], F]:
    """A click option of its own under one of the headings."""
    return click.option(*names, cls=_GroupedOption, group=group, **kwargs)


def add_flags(config: type, prefix: str = "") -> Callable[[F], F]:
    """A decorator that gives a click command one flag per field of `config`.

    A flag that was not given arrives as None, so that what the user said can be told from a default. The command
    receives them under the names `<prefix with underscores><field name>`.
    """
    hints = typing.get_type_hints(config)

    def decorate(command: F) -> F:
        options, group = [], OTHERS
        for field in dataclasses.fields(config):
            group = field.metadata.get("group") or group
            if flag := flag_of(field, prefix):
                name = prefix.replace("-", "_") + field.name
                options.append(_option(flag, name, field, plain_type(hints[field.name]), group))
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


def _option(flag: str, name: str, field: dataclasses.Field[Any], kind: Any, group: str) -> Callable[[F], F]:
    meta = field.metadata
    default = meta.get("shown_default") or ("none" if field.default is None else str(field.default))
    if meta.get("choices"):
        value_type: Any = click.Choice(meta["choices"])
    else:
        value_type = {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(kind, click.STRING)
    return click.option(
        flag,
        name,
        cls=_GroupedOption,
        group=group,
        type=value_type,
        metavar=meta.get("metavar") or ("BOOL" if kind is bool else None),
        default=None,
        help=f"{meta['help']}  [default: {default}]",
        **({"is_flag": False, "flag_value": "true"} if kind is bool else {}),
    )
