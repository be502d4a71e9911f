"""One dataclass field = one option = one default = one help line.

A frozen dataclass whose fields are made with `option` is at once the record that the program passes around, its JSON
form, and (see kd_plugin.config.click_flags) its command-line flags. A field made with `parts` holds further such
dataclasses by name, whose options stand beside the others, without nesting, in JSON and on the command line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kd_plugin.config.ranges import ANY, WEIGHT, Range
from kd_plugin.errors import KDError, nearest

__all__ = ["Option", "accepted_values", "from_dict", "option", "options_of", "out_of_range", "parts", "to_dict"]

C = TypeVar("C")  # a config dataclass
SIMPLE = (bool, int, float, str)


@dataclass(frozen=True)
class Option:
    """One option of a config dataclass.

    key:     its name in JSON, and as a Python keyword.
    path:    the attributes (and keys of mappings) that lead to its value.
    kind:    the type it accepts.
    optional: None is accepted too.
    default: dataclasses.MISSING if it has none.
    help, range, metavar, choices, flag, shown_default, group: see `option`.
    """

    key: str
    path: tuple[str, ...]
    kind: Any
    optional: bool
    default: Any
    help: str
    range: Range
    metavar: str | None
    choices: tuple[str, ...] | None
    flag: str | None
    shown_default: str | None
    group: str | None

    def flag_name(self, spell: Callable[[str], str]) -> str:
        """Its flag: the one that was declared, otherwise as `spell` makes it of the key; "" for an option without."""
        return spell(self.key) if self.flag is None else self.flag

    def is_in(self, config: Any) -> bool:
        """False for an option of a part that was added to the table after `config` was made."""
        return len(self.path) == 1 or self.path[1] in getattr(config, self.path[0])

    def value_in(self, config: Any) -> Any:
        value = getattr(config, self.path[0])
        return value if len(self.path) == 1 else getattr(value[self.path[1]], self.path[2])


def option(
    default: Any,
    help: str,
    range: Range = ANY,
    *,
    key: str | None = None,
    metavar: str | None = None,
    choices: Iterable[str] | None = None,
    flag: str | None = None,
    shown_default: str | None = None,
    group: str | None = None,
) -> Any:
    """A dataclass field with its flag and help line.

    Args:
        default: the field's one default.
        help: one line.
        range: the values of a number.
        key: its name in JSON and as a keyword, if it is not the field's.
        metavar: the unit or form of the value (KIMG, ZIP|DIR).
        choices: the accepted names, of a registry those it has when the options are listed.
        flag: the flag, if it does not follow from the key; "" for a field without a flag.
        shown_default: what --help shows instead of the default if something else supplies the value.
        group: heading of this and the following options in --help.
    """
    metadata = {
        "key": key,
        "help": help,
        "range": range,
        "metavar": metavar,
        "choices": choices,
        "flag": flag,
        "shown_default": shown_default,
        "group": group,
    }
    return dataclasses.field(default=default, metadata=metadata)


def parts(table: Callable[[], Mapping[str, type]]) -> Any:
    """A dataclass field that holds config dataclasses by name: {name: dataclass()} for each entry of `table`.

    The option `field` of the part `name` has the key `name_field`, its option `weight`, which is at least 0, the key
    `name`, unless its `option(key=)` says otherwise.

    Args:
        table: gives the dataclasses by name; called whenever options are listed, so entries may be added later.
    """
    return dataclasses.field(
        default_factory=lambda: {name: part() for name, part in table().items()},
        metadata={"parts": table},
    )


def options_of(config: type) -> list[Option]:
    """All options of a config dataclass, in the order of their definition.

    Raises:
        KDError: two options share a key.
    """
    hints, options, group = typing.get_type_hints(config), [], None
    for field in dataclasses.fields(config):
        group = field.metadata.get("group") or group
        if table := field.metadata.get("parts"):
            for name, part in table().items():
                part_hints = typing.get_type_hints(part)
                for of_part in dataclasses.fields(part):
                    item = _option_of(of_part, part_hints[of_part.name], of_part.metadata.get("group") or group)
                    if of_part.name == "weight":
                        item = dataclasses.replace(item, range=WEIGHT)
                    default_key = name if of_part.name == "weight" else f"{name}_{of_part.name}"
                    key = of_part.metadata.get("key") or default_key
                    options.append(dataclasses.replace(item, key=key, path=(field.name, name, of_part.name)))
        else:
            options.append(_option_of(field, hints[field.name], group))
    keys = [item.key for item in options]
    if double := next((key for key in keys if keys.count(key) > 1), None):
        raise KDError(f"two options are called '{double}'; rename the one that was added")
    return options


def _option_of(field: dataclasses.Field[Any], annotation: Any, group: str | None) -> Option:
    meta = field.metadata
    kind = _without_none(annotation)
    return Option(
        key=meta.get("key") or field.name,
        path=(field.name,),
        kind=kind,
        optional=kind is not annotation,
        default=field.default,
        help=meta.get("help", ""),
        range=meta.get("range", ANY),
        metavar=meta.get("metavar"),
        choices=None if (names := meta.get("choices")) is None else tuple(names),
        flag=meta.get("flag"),
        shown_default=meta.get("shown_default"),
        group=group,
    )


def _without_none(annotation: Any) -> Any:
    """`float | None` -> float."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return annotation


def out_of_range(config: type, values: Mapping[str, Any]) -> Iterator[tuple[Option, float, str]]:
    """Of `values` by key: the options whose number is not in its range, its value, and what it must be instead."""
    for item in options_of(config):
        value = values.get(item.key)
        if item.kind not in (int, float) or not isinstance(value, int | float) or isinstance(value, bool):
            continue  # no number: from_dict refuses it
        if problem := item.range.problem(value):
            yield item, value, problem


def to_dict(config: Any) -> dict[str, Any]:
    """The options by key, as JSON-ready values (nested dataclasses become nested dicts)."""
    values = {item.key: item.value_in(config) for item in options_of(type(config)) if item.is_in(config)}
    return {key: to_dict(value) if dataclasses.is_dataclass(value) else value for key, value in values.items()}


def from_dict(config: type[C], values: Mapping[str, Any], what: str = "option") -> C:
    """Build `config` from options by key.

    Raises:
        KDError: an unknown key (the message suggests the nearest one), a value of another type, or one that the
            dataclass refuses.
    """
    known = {item.key: item for item in options_of(config)}
    fields: dict[str, Any] = {}
    of_parts: dict[tuple[str, str], dict[str, Any]] = {}
    for key, accepted in accepted_values(config, values, what).items():
        first, *rest = known[key].path
        if rest:
            of_parts.setdefault((first, rest[0]), {})[rest[1]] = accepted
        else:
            fields[first] = accepted
    for field in dataclasses.fields(typing.cast("type[Any]", config)):
        if table := field.metadata.get("parts"):
            fields[field.name] = {name: part(**of_parts.get((field.name, name), {})) for name, part in table().items()}
    return config(**fields)


def accepted_values(config: type, values: Mapping[str, Any], what: str = "option") -> dict[str, Any]:
    """The values by key, in the types of their options.

    Raises:
        KDError: an unknown key (the message suggests the nearest one), or a value of another type.
    """
    known = {item.key: item for item in options_of(config)}
    accepted = {}
    for key, value in values.items():
        if key not in known:
            raise KDError(f"unknown {what} '{key}'{nearest(key, known)}")
        try:
            accepted[key] = _accepted(known[key], value, what)
        except TypeError as error:
            raise KDError(f"{what} '{key}': {error}") from None
    return accepted


def _accepted(item: Option, value: Any, what: str) -> Any:
    """A value in the option's type; JSON has no tuples and writes whole floats as integers.

    Raises:
        TypeError: a bool, number or text where the option wants another of these.
    """
    if isinstance(value, Mapping) and dataclasses.is_dataclass(item.kind):
        return from_dict(typing.cast("type[Any]", item.kind), value, what)
    if isinstance(value, list) and typing.get_origin(item.kind) is tuple:
        return tuple(value)
    if item.kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise TypeError("a whole number that is too large") from None
    if item.kind in SIMPLE and type(value) is not item.kind and not (value is None and item.optional):
        raise TypeError(f"{value!r} is not of type {item.kind.__name__}")
    return value
