"""A table's report: Markdown, and one HTML page that needs no other file."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.results import Figure, Summary, figures_of, summarize
from experiments.runs import Run
from experiments.table import Table
from training.report.page.curves import Drawing, draw_lines
from training.report.page.findings import Findings, Judge, Where
from training.report.page.pictures import file_uri
from training.report.page.record import RunRecord
from training.report.page.template import load_template

__all__ = ["Row", "page", "rows", "to_markdown"]

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Entry:
    """What stands in a cell of the table; every part may be empty."""

    ours: str = ""
    other: str = ""
    published: str = ""
    difference: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Row:
    """`names` of its choices, and its entries by column."""

    names: tuple[str, ...]
    entries: Mapping[str, Entry]


def rows(table: Table, summaries: Mapping[tuple[str, ...], Summary]) -> list[Row]:
    """The table; of each column the lowest mean is the best one."""
    lowest = {
        column: min((s.mean for names, s in summaries.items() if names[-1] == column), default=math.nan)
        for column in table.columns
    }
    return [
        Row(
            row,
            {name: _entry(table, (*row, name), summaries.get((*row, name)), lowest[name]) for name in table.columns},
        )
        for row in table.rows
    ]


def _entry(table: Table, names: tuple[str, ...], summary: Summary | None, lowest: float) -> Entry:
    published = table.published_at(names)
    texts = [f"{value:g}{_mark(table, each)}" for value, each in published]
    if summary is None:
        return Entry(published=", ".join(texts))
    spread = "" if summary.spread is None else f" ± {summary.spread:.2g}"
    ours = f"{summary.mean:.4g}{spread} (n={len(summary.figures)})"
    other = f"{'last' if summary.best else 'best'} {summary.other:.4g}"
    comparable = next((value for value, each in published if not each.protocol), None)
    difference = "" if comparable is None else f"{summary.mean - comparable:+.3g}"
    return Entry(ours, other, ", ".join(texts), difference, summary.mean == lowest)


def _mark(table: Table, published: Any) -> str:
    return f" [{_sources(table).index(_source(published)) + 1}]"


def _source(published: Any) -> str:
    protocol = f"; protocol: {published.protocol}; not compared" if getattr(published, "protocol", "") else ""
    return f"{published.source}{protocol}"


def _sources(table: Table) -> list[str]:
    """Of published figures, each once, in the order of the table."""
    return list(dict.fromkeys(map(_source, table.published)))


def to_markdown(table: Table, runs: Sequence[Run]) -> str:
    """The table with its protocol and sources.

    Raises:
        UserError: figures of one column have different protocols.
    """
    summaries = summarize(table, runs, table.metric, table.best)
    axes = [axis.name for axis in table.axis[:-1]]
    lines = [f"# {table.title}", "", table.about, "", _caption(table), ""]
    lines += ["| " + " | ".join([*axes, *table.columns]) + " |", "|" + "---|" * (len(axes) + len(table.columns))]
    for row in rows(table, summaries):
        cells = [_in_markdown(row.entries[name]) for name in table.columns]
        lines.append("| " + " | ".join([*row.names, *cells]) + " |")
    lines += ["", *(f"[{number}] {source}" for number, source in enumerate(_sources(table), 1))]
    if table.elsewhere:
        lines += ["", "Published elsewhere, by other protocols; not compared:", ""]
        lines += ["| | " + " | ".join([*table.columns, "source"]) + " |", "|" + "---|" * (len(table.columns) + 2)]
        for each in table.elsewhere:
            values = [f"{each.values[name]:g}" if name in each.values else "" for name in table.columns]
            lines.append("| " + " | ".join([each.name, *values, each.source]) + " |")
    lines += ["", *_protocol_lines(table, runs), "", *_unfinished(runs)]
    return "\n".join(lines).rstrip() + "\n"


def _caption(table: Table) -> str:
    which = "best" if table.best else "last"
    return (
        f"{table.metric}, of the {which} snapshot: mean ± standard deviation over seeds (lower is better; the lowest "
        f"of a column in bold). Published figures in brackets, with the difference where the protocol is the same. "
        f"Protocol: {table.protocol}."
    )


def _in_markdown(entry: Entry) -> str:
    ours = f"**{entry.ours}**" if entry.is_best else entry.ours
    against = f" ({entry.published}{'; ' + entry.difference if entry.difference else ''})" if entry.published else ""
    return (ours + (f", {entry.other}" if entry.other else "") + against).strip()


def _protocol_lines(table: Table, runs: Sequence[Run]) -> list[str]:
    protocols = {str(figure.protocol) for run in runs if (figure := figures_of(run).get(table.metric)) is not None}
    return ["As measured:", *(f"- {each}" for each in sorted(protocols))] if protocols else ["No run has ended."]


def _unfinished(runs: Sequence[Run]) -> list[str]:
    left = [run.name for run in runs if not run.finished]
    named = "; ".join(left[:20]) + (" ..." if len(left) > 20 else "")
    return [f"{len(left)} of {len(runs)} runs are not finished: {named}"] if left else []


def page(table: Table, runs: Sequence[Run], where: Where | None) -> str:
    """
    Args:
        runs: of the table; those that have ended are shown.
        where: how to find the samples' nearest training images; None: do not.

    Raises:
        UserError: figures of one column have different protocols, or a package is missing.
    """
    summaries = summarize(table, runs, table.metric, table.best)
    return load_template(_TEMPLATE).render(
        table=table,
        axes=[axis.name for axis in table.axis[:-1]],
        rows=rows(table, summaries),
        caption=_caption(table),
        sources=_sources(table),
        protocols=_protocol_lines(table, runs)[1:],
        unfinished=_unfinished(runs),
        curves=[drawing for column in table.columns if (drawing := _curves(table, summaries, column)) is not None],
        samples=_samples(table, runs, where),
        commands=[(run.name, _shown_command(run)) for run in runs],
    )


def _shown_command(run: Run) -> str:
    """Without the folder of the run, and with names in place of paths, which are of this machine."""
    flags = [flag for flag in run.command if not flag.startswith(("--outdir=", "--resume="))]
    return shlex.join(re.sub(r"(?<=[=:+])/[^+]*/", "", flag) for flag in flags)


def _curves(table: Table, summaries: Mapping[tuple[str, ...], Summary], column: str) -> Drawing | None:
    """The metric over kimg of every row, the mean over seeds."""
    lines = {
        " / ".join(names[:-1]) or column: _mean_curve(summary.figures)
        for names, summary in summaries.items()
        if names[-1] == column
    }
    return draw_lines(f"{column}: {table.metric}", lines) if lines else None


def _mean_curve(figures: Sequence[Figure]) -> dict[float, float]:
    shared = sorted(set.intersection(*(set(figure.curve) for figure in figures)))
    return {kimg: sum(figure.curve[kimg] for figure in figures) / len(figures) for kimg in shared}


@dataclass(frozen=True)
class Samples:
    """Of one run: its last grid as a data URI, and its samples with their nearest training images."""

    name: str
    grid: str
    findings: Findings


def _samples(table: Table, runs: Sequence[Run], where: Where | None) -> dict[str, list[Samples]]:
    """By column, the first seed of every row: the same seeds, hence the same latents."""
    first = [run for run in runs if run.seed == 0 and run.finished and run.run_dir is not None]
    records = [RunRecord.read(run.run_dir) for run in first if run.run_dir is not None]
    judge = Judge(records, where) if where is not None and records else None
    shown: dict[str, list[Samples]] = {column: [] for column in table.columns}
    for run, record in zip(first, records, strict=True):
        grid = file_uri(next(reversed(record.grids.values()))) if record.grids else ""
        findings = Findings(problem="not looked for") if judge is None else judge.examine(record)
        shown[run.cell.column].append(Samples(" / ".join(run.cell.row) or run.cell.column, grid, findings))
    return shown
