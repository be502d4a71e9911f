"""The command line of a config dataclass: a flag for each option, under headings in --help."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from typing import Any, TypeVar

import click

from kd_plugin.config.kd import VARIANTS, KDConfig
from kd_plugin.config.schema import Option, from_dict, options_of, out_of_range
from kd_plugin.errors import KDError, nearest
from kd_plugin.errors import flag as kd_flag
from kd_plugin.programs import print_any_text
from kd_plugin.user_code import import_code

__all__ = [
    "IMPORT_FLAG",
    "CommandGroup",
    "GroupedCommand",
    "TrainCommand",
    "add_flags",
    "at_home",
    "code_option",
    "grouped_option",
    "import_option",
    "no_value",
    "options_from",
    "plain_flag",
    "require_in_range",
    "variant_option",
]

IMPORT_FLAG = "--kd-import"

F = TypeVar("F", bound=Callable[..., Any])  # a command
R = TypeVar("R")  # a dataclass of options
OTHERS = "Others"


class _GroupedOption(click.Option):
    """An option that knows its heading."""

    def __init__(self, *args: Any, group: str = OTHERS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose --help lists its options under their headings, in the order of their definition."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        print_any_text()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses what click takes for something else: an empty value, as of a shell's variable that was never set, and
        `--mirror=-1`, of an option whose value may be left out, as `--mirror` and an option `-1`. Replaces a leading
        `~/` by the user's folder, which shells do not do in `--outdir=~/runs`."""
        optional = {name for parameter in self.params if _value_is_optional(parameter) for name in parameter.opts}
        for name, _, value in (arg.partition("=") for arg in args):
            if name in optional and value.startswith("-"):
                raise click.UsageError(f"{name}: '{value}' was given, which it does not take; see --help", ctx)
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            name = parameter.name or ""
            values = ctx.params.get(name)
            for text in values if isinstance(values, tuple) else (values,):
                if isinstance(text, str) and (came := no_value(text)):
                    raise click.UsageError(f"{parameter.opts[0]}: {came} was given; leave it out or give a value", ctx)
            if name in ctx.params:
                ctx.params[name] = at_home(values)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", OTHERS), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=32)


class CommandGroup(click.Group):
    """A program with several commands.

    Args:
        default: the command that need not be named; None: each must be.
    """

    def __init__(self, *args: Any, default: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default

    def main(self, *args: Any, **kwargs: Any) -> Any:
        print_any_text()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`style_mixing` is `style-mixing`; flags without a command are those of the default one."""
        named = args[0].replace("_", "-") if args else ""
        if named in self.commands:
            args = [named, *args[1:]]
        elif args and not named.startswith("-"):
            raise click.UsageError(f"there is no command '{args[0]}'{nearest(args[0], self.commands)}", ctx)
        elif self._default is not None:
            args = [self._default, *args]
        return super().parse_args(ctx, args)


def _value_is_optional(parameter: click.Parameter) -> bool:
    return (
        isinstance(parameter, click.Option) and not parameter.is_flag and isinstance(parameter.flag_value, str | float)
    )


def grouped_option(*names: str, group: str, **kwargs: Any) -> Callable[[F], F]:
    """A click option outside the config dataclasses, under one of the headings."""
    return click.option(*names, cls=_GroupedOption, group=group, **kwargs)


variant_option = grouped_option(
    "--kd-variant",
    group="Distillation",
    metavar="NAME",
    help=f"Start from a published configuration ({', '.join(VARIANTS)}); other --kd-* flags override it",
)


def _import_option(help: str, **kwargs: Any) -> Callable[[F], F]:
    return grouped_option(
        IMPORT_FLAG, "kd_import", metavar="MODULE|FILE.py", multiple=True, help=f"{help} (docs/extending.md)", **kwargs
    )


import_option = _import_option(
    "Import your code first; it may register terms, which then have flags", group="Distillation"
)


def _import_all(ctx: click.Context, specs: Iterable[str]) -> None:
    for spec in specs:
        try:
            import_code(at_home(spec), f"{IMPORT_FLAG}={spec}")
        except KDError as error:
            raise click.UsageError(str(error), ctx) from error


code_option = _import_option(
    "Import your code first: a network of your own architecture needs it",
    group=OTHERS,
    expose_value=False,
    callback=lambda ctx, parameter, specs: _import_all(ctx, specs),
)


def no_value(text: str) -> str:
    """What came instead of a value; "" for a text that can be one."""
    return "nothing" if not text else "a text with a zero byte" if "\0" in text else ""


def at_home(value: Any) -> Any:
    """A text `~/...`, or one in a tuple, with the path of the user's folder; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(at_home, value))
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def plain_flag(key: str) -> str:
    """`batch_gpu` -> `--batch-gpu`."""
    return f"--{key.replace('_', '-')}"


def add_flags(config: type, prefix: str = "", flag: Callable[[str], str] = plain_flag) -> Callable[[F], F]:
    """A decorator that gives a click command one flag for each option of `config`.

    A flag that was not given arrives as None, so that the user's choices can be told from defaults.

    Args:
        config: a config dataclass.
        prefix: the command receives the options as `prefix + key`.
        flag: turns a key into a flag.
    """

    def decorate(command: F) -> F:
        for names, arguments in reversed(_click_options(config, prefix, flag)):
            command = click.option(*names, cls=_GroupedOption, **arguments)(command)
        return command

    return decorate


def options_from(record: type[R], flags: Mapping[str, Any]) -> R:
    """The options of a program, from its flags; one that was not given arrives as None.

    Raises:
        KDError: as require_in_range, or what the dataclass refuses.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    require_in_range(record, given)
    return from_dict(record, given)


def require_in_range(record: type, values: Mapping[str, Any]) -> None:
    """
    Args:
        record: a dataclass of options.
        values: some of them, by key.

    Raises:
        KDError: a number is not in its range, or a name not among the choices; names the flag.
    """
    for item, value, expected in out_of_range(record, values):
        raise KDError(f"{plain_flag(item.key)}: {value} was given, it must be {expected}")
    for item in options_of(record):  # click asks for these itself; config.json and Python do not
        name = values.get(item.key)
        if item.choices and name is not None and name not in item.choices:
            raise KDError(f"{plain_flag(item.key)}: {name} was given, it must be one of {', '.join(item.choices)}")


class TrainCommand(GroupedCommand):
    """A command with the flags of KDConfig, also for terms and names that the modules of `--kd-import` register."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _import_all(ctx, _values_of(IMPORT_FLAG, args))
        now: dict[str | None, click.Parameter] = {
            names[1]: _GroupedOption(names, **arguments)
            for names, arguments in _click_options(KDConfig, "kd_", kd_flag)
        }
        self.params = [now.pop(parameter.name, parameter) for parameter in self.params] + list(now.values())
        return super().parse_args(ctx, args)


def _values_of(flag: str, args: list[str]) -> list[str]:
    """`--flag=VALUE` and `--flag VALUE`, before click has parsed anything."""
    joined = [arg.partition("=")[2] for arg in args if arg.startswith(f"{flag}=")]
    return joined + [value for name, value in itertools.pairwise(args) if name == flag]


def _click_options(
    config: type, prefix: str, flag: Callable[[str], str]
) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    """Names and arguments of a click option for each option of `config` that has a flag."""
    return [
        ((name, prefix + item.key), _click_arguments(item))
        for item in options_of(config)
        if (name := item.flag_name(flag))
    ]


def _click_arguments(item: Option) -> dict[str, Any]:
    default = item.shown_default or ("none" if item.default is None else str(item.default))
    if item.choices:
        value_type: Any = click.Choice(item.choices)
    else:
        value_type = {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(item.kind, click.STRING)
    is_bool = item.kind is bool
    required = item.default is MISSING and item.shown_default is None
    return {
        "group": item.group or OTHERS,
        "type": value_type,
        "metavar": item.metavar or ("BOOL" if is_bool else None),
        "required": required,
        **({} if required else {"default": None}),  # click takes a declared None for a value
        "help": item.help if required else f"{item.help}  [default: {default}]",
        **({"is_flag": False, "flag_value": "true"} if is_bool else {}),
    }
