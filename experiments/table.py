"""A table of runs, as experiments/NAME.toml describes it: axes whose choices set flags of train.py.

    title = "..."
    protocol = "..."            what the metric is computed from
    metric = "fid5k_full"       the figure of a cell
    [flags]                     of every run
    [[axis]]                    name, and [[axis.choice]]: name, flags; the last axis gives the columns
    [[published]]               row = [a choice of each other axis], values = {column = figure}, source; protocol, if it
                                is not the table's
    [[elsewhere]]               name, values, source: figures of a method that this table does not train
    [prepare], [gigabytes], [sec_per_kimg]: see `Table`

In flags, {teacher} and {detector} stand for what reproduce.py was given, {here} for this folder.

A cell is one choice of each axis; it is run once per seed.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import options_of
from kd_plugin.errors import nearest
from training.config import TrainConfig

__all__ = ["FOLDER", "Axis", "Cell", "Choice", "Elsewhere", "Published", "Table", "load_table", "table_names"]

FOLDER = Path(__file__).parent
Flags = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """A value of an axis: what it is called in the table, and the flags it sets."""

    name: str
    flags: Flags = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    name: str
    choice: tuple[Choice, ...]


@dataclass(frozen=True)
class Cell:
    """A choice of each axis, by name, and the flags of its runs."""

    names: tuple[str, ...]
    flags: Flags

    @property
    def row(self) -> tuple[str, ...]:
        return self.names[:-1]

    @property
    def column(self) -> str:
        return self.names[-1]


@dataclass(frozen=True)
class Published:
    """Figures of a row, by column, and where they can be read. `protocol` is empty where it is the table's."""

    row: tuple[str, ...]
    values: Mapping[str, float]
    source: str
    protocol: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """Figures for which this table has no runs; their protocols differ or are not known."""

    name: str
    values: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        name: the file's, without its suffix.
        title, about: of the report.
        protocol: how the metric is computed: the number of fakes, the reals, the detector, mirroring and resizing.
        metric: whose figure a cell shows; lower is better.
        best: it is that of the best snapshot; else of the last one. The report gives both.
        seeds: runs of a cell.
        flags: of every run, by the name of the flag.
        axis: in the order in which their flags are applied; the last one gives the columns.
        teacher, detector: defaults of reproduce.py's flags.
        published, elsewhere: figures of others.
        prepare: what makes a data set that is not downloaded by its name: {file: command}.
        gigabytes: of downloads, by what is downloaded.
        sec_per_kimg: measured figures, by where they were measured; the first one counts.
        resolution: of the images, to estimate sizes by.
    """

    name: str
    title: str
    about: str
    protocol: str
    metric: str
    axis: tuple[Axis, ...]
    best: bool = False
    seeds: int = 3
    flags: Flags = field(default_factory=dict)
    teacher: str = "clip"
    detector: str = "inception"
    published: tuple[Published, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    prepare: Mapping[str, str] = field(default_factory=dict)
    gigabytes: Mapping[str, float] = field(default_factory=dict)
    sec_per_kimg: Mapping[str, float] = field(default_factory=dict)
    resolution: int = 256

    @property
    def columns(self) -> list[str]:
        return [choice.name for choice in self.axis[-1].choice]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(itertools.product(*([choice.name for choice in axis.choice] for axis in self.axis[:-1])))

    def cells(self) -> list[Cell]:
        """Row by row."""
        found = []
        for choices in itertools.product(*(axis.choice for axis in self.axis)):
            flags = dict(self.flags)
            for choice in choices:
                flags |= choice.flags
            found.append(Cell(tuple(choice.name for choice in choices), flags))
        return found

    def published_at(self, names: Sequence[str]) -> list[tuple[float, Published]]:
        """The published figures of a cell."""
        row, column = tuple(names[:-1]), names[-1]
        return [(each.values[column], each) for each in self.published if each.row == row and column in each.values]


def table_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_table(name: str) -> Table:
    """
    Args:
        name: of a table in this folder, or the path of a .toml file.

    Raises:
        UserError: there is no such table, it is no TOML (naming the line), or an entry cannot be used.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"TABLE: '{name}' is unknown{nearest(name, table_names())}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"TABLE: '{path}' cannot be read as TOML: {error}") from None
    try:
        table = _table(path.stem, content)
    except _Wrong as error:
        raise UserError(f"TABLE: '{path}': {error}") from None
    return table


class _Wrong(Exception):
    """An entry that cannot be used."""


def _table(name: str, content: dict[str, Any]) -> Table:
    axes = tuple(
        Axis(each.get("name", ""), tuple(_made(Choice, choice, "axis.choice") for choice in each.get("choice", [])))
        for each in content.pop("axis", [])
    )
    published = tuple(
        _made(Published, each | {"row": tuple(each.get("row", ()))}, "published")
        for each in content.pop("published", [])
    )
    elsewhere = tuple(_made(Elsewhere, each, "elsewhere") for each in content.pop("elsewhere", []))
    given = {**content, "name": name, "axis": axes, "published": published, "elsewhere": elsewhere}
    table: Table = _made(Table, given, "the table")
    _check(table)
    return table


def _made(record: type, values: Mapping[str, Any], where: str) -> Any:
    fields = record.__dataclass_fields__  # type: ignore[attr-defined]
    for key in values:
        if key not in fields:
            raise _Wrong(f"'{key}' in {where} is unknown{nearest(key, fields)}")
    try:
        return record(**values)
    except TypeError as error:
        missing = str(error).partition("missing")[2].partition(": ")[2]
        raise _Wrong(f"{where} {dict(values) if len(values) < 3 else ''} lacks {missing}") from None


def _check(table: Table) -> None:
    if not table.axis or not all(axis.choice for axis in table.axis):
        raise _Wrong("there must be an [[axis]], each with an [[axis.choice]]")
    for axis in table.axis:
        names = [choice.name for choice in axis.choice]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise _Wrong(f"axis '{axis.name}' has '{double}' twice")
    rows = {" / ".join(row) for row in table.rows}
    published = [(" / ".join(each.row), each.values) for each in table.published]
    for what, _ in published:
        if what not in rows:
            raise _Wrong(f"published row '{what}' is none of the table's{nearest(what, rows)}")
    for what, values in (*published, *((each.name, each.values) for each in table.elsewhere)):
        for column, value in values.items():
            if column not in table.columns:
                raise _Wrong(f"'{what}' has a figure for '{column}'{nearest(column, table.columns)}")
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise _Wrong(f"'{what}' has {value!r} for '{column}', which is no number")
    known = _known_flags()
    for where, flags in _flags_of(table):
        for key in flags:
            if key not in known:
                raise _Wrong(f"flag '{key}' of {where} is unknown{nearest(key, known)}")


def _flags_of(table: Table) -> Iterator[tuple[str, Flags]]:
    yield "the table", table.flags
    for axis in table.axis:
        for choice in axis.choice:
            yield f"'{choice.name}'", choice.flags


def _known_flags() -> list[str]:
    """Of train.py, as they are written in a table."""
    of_kd = [f"kd_{item.key}" for item in options_of(KDConfig) if item.key != "teacher"]
    return [*(item.key for item in options_of(TrainConfig)), "kd", "kd_variant", *of_kd]
