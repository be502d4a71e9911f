"""One dataclass field = one option = one default = one help line.

A frozen dataclass whose fields are made with `option` is at once the record that the program passes around, its
JSON form, and (see kd_plugin.flags) its command-line flags. The reference trainer and the launchers for official
checkouts share it.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from kd_plugin.errors import KDError, nearest

__all__ = ["flag_of", "from_dict", "option", "plain_type", "to_dict"]

C = TypeVar("C")  # a config dataclass
SIMPLE = (bool, int, float, str)


def option(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    choices: Iterable[str] | None = None,
    flag: str | None = None,
    shown_default: str | None = None,
    group: str | None = None,
) -> Any:
    """A dataclass field with what its flag needs.

    Args:
        default: the field's one default.
        help: one line.
        metavar: the unit or form of the value (KIMG, ZIP|DIR).
        choices: the names that are accepted.
        flag: the flag, where it is not the field's name with dashes; "" for a field without a flag.
        shown_default: what --help says in place of the default, where something else supplies the value.
        group: heading of this and the following options in --help.
    """
    metadata = {
        "help": help,
        "metavar": metavar,
        "choices": tuple(choices) if choices is not None else None,
        "flag": flag,
        "shown_default": shown_default,
        "group": group,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field[Any], prefix: str = "") -> str:
    """The flag of a field: '--kd-view' for `view` under the prefix 'kd-'; '' for a field without one."""
    named = field.metadata.get("flag")
    if named is not None:
        return str(named)
    return f"--{prefix}{field.name.replace('_', '-')}"


def plain_type(annotation: Any) -> Any:
    """`float | None` -> float."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return annotation


def to_dict(config: Any) -> dict[str, Any]:
    """The fields as JSON-ready values (nested dataclasses become nested dicts)."""
    return dataclasses.asdict(config)


def _restored(kind: Any, value: Any, what: str) -> Any:
    """A value as it came from JSON, as the field of this type wants it.

    Raises:
        TypeError: a bool, number or text where the field wants another of these.
    """
    plain = plain_type(kind)
    if isinstance(value, Mapping) and dataclasses.is_dataclass(plain):
        return from_dict(typing.cast("type[Any]", plain), value, what)
    if isinstance(value, list) and typing.get_origin(plain) is tuple:
        return tuple(value)  # JSON has no tuples
    if plain is float and type(value) is int:
        return float(value)
    if plain in SIMPLE and type(value) is not plain and not (value is None and plain is not kind):
        raise TypeError(f"{value!r} is not of type {plain.__name__}")
    return value


def from_dict(config: type[C], values: Mapping[str, Any], what: str = "option") -> C:
    """Builds `config` from a mapping; a name it does not have is an error with the nearest one.

    Raises:
        KDError: an unknown name, a value of another type, or one that the dataclass refuses.
    """
    hints = typing.get_type_hints(config)
    fields = {field.name for field in dataclasses.fields(typing.cast("type[Any]", config))}
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise KDError(f"unknown {what} '{name}'{nearest(name, fields)}")
        try:
            made[name] = _restored(hints[name], value, what)
        except TypeError as error:
            raise KDError(f"{what} '{name}': {error}") from None
    return config(**made)
