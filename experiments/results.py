"""What the runs of a table came to: their figures, with the protocol of each, gathered from the runs' folders."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from experiments.runs import Run
from experiments.table import Cell, Table
from training.report.records import read_lines, read_stats

__all__ = ["Figure", "Protocol", "Summary", "figures_of", "seconds_per_kimg", "summarize", "to_csv"]

# Of a line of metric-*.jsonl: figures can be compared where all of these agree.
_PROTOCOL = ("metric", "detector", "detector_sha256", "num_real", "num_fake", "dataset", "resize", "mirror")


@dataclass(frozen=True)
class Protocol:
    """How a figure was computed. Equal protocols can be compared; the seed of the fakes is not part of it."""

    metric: str
    detector: str
    detector_sha256: str
    num_real: int
    num_fake: int
    dataset: str
    resize: str
    mirror: bool

    def __str__(self) -> str:
        mirrored = "mirrored too" if self.mirror else "not mirrored"
        sha = f" (SHA-256 {self.detector_sha256[:12]}...)" if self.detector_sha256 else ""
        return (
            f"{self.metric}: {self.num_fake} fakes against {self.num_real} images of {self.dataset}, {mirrored}, "
            f"{self.resize if self.resize != 'none' else 'not resized'}, by {self.detector}{sha}"
        )


@dataclass(frozen=True)
class Figure:
    """A metric of one run.

    Attributes:
        run: whose.
        name: of the value: `kid5k_full`.
        protocol: of its last snapshot.
        curve: by kimg, those of this protocol.
        errors: of the same, where the metric states them.
    """

    run: Run
    name: str
    protocol: Protocol
    curve: Mapping[float, float]
    errors: Mapping[float, float]

    @property
    def kimg(self) -> float:
        return max(self.curve)

    @property
    def last(self) -> float:
        return self.curve[self.kimg]

    @property
    def best(self) -> float:
        return min(self.curve.values())

    @property
    def best_kimg(self) -> float:
        return min(self.curve, key=lambda kimg: self.curve[kimg])


@dataclass(frozen=True)
class Summary:
    """A cell: what its seeds say. `spread` is the standard deviation over seeds, None of one."""

    cell: Cell
    figures: tuple[Figure, ...]
    best: bool

    @property
    def values(self) -> list[float]:
        return [figure.best if self.best else figure.last for figure in self.figures]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.figures else math.nan

    @property
    def spread(self) -> float | None:
        return statistics.stdev(self.values) if len(self.figures) > 1 else None

    @property
    def other(self) -> float:
        """The mean of the last figures where the best ones count, and the other way round."""
        return statistics.fmean(f.last if self.best else f.best for f in self.figures) if self.figures else math.nan


def figures_of(run: Run) -> dict[str, Figure]:
    """By metric; empty before the first snapshot."""
    folder = run.run_dir
    found = {}
    for path in sorted(folder.glob("metric-*.jsonl")) if folder is not None else []:
        lines = [line for line in read_lines(path) if _is_whole(line)]
        if lines:
            figure = _figure(run, lines)
            found[figure.name] = figure
    return found


def _is_whole(line: Mapping[str, Any]) -> bool:
    results, kimg = line.get("results"), line.get("kimg")
    if not (isinstance(results, dict) and isinstance(kimg, int | float) and all(key in line for key in _PROTOCOL)):
        return False
    value = results.get(line["metric"])
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(run: Run, lines: Sequence[Mapping[str, Any]]) -> Figure:
    protocol = _protocol(lines[-1])
    same = [line for line in lines if _protocol(line) == protocol]
    name = protocol.metric
    error = f"{name}_stderr"
    return Figure(
        run,
        name,
        protocol,
        {line["kimg"]: line["results"][name] for line in same},
        {line["kimg"]: line["results"][error] for line in same if error in line["results"]},
    )


def _protocol(line: Mapping[str, Any]) -> Protocol:
    return Protocol(**{key: line[key] for key in _PROTOCOL})


def summarize(table: Table, runs: Sequence[Run], metric: str, best: bool) -> dict[tuple[str, ...], Summary]:
    """By cell, of the runs that have the metric and ended.

    Raises:
        UserError: runs of one column have figures of different protocols.
    """
    figures: dict[tuple[str, ...], list[Figure]] = {}
    for run in runs:
        if run.finished and (figure := figures_of(run).get(metric)) is not None:
            figures.setdefault(run.cell.names, []).append(figure)
    for column in table.columns:
        protocols = {
            figure.protocol: figure for names, group in figures.items() if names[-1] == column for figure in group
        }
        if len(protocols) > 1:
            first, second = list(protocols.items())[:2]
            raise UserError(
                f"runs of {column} were measured in different ways, and cannot be compared: {first[0]} "
                f"({first[1].run.name}); {second[0]} ({second[1].run.name})"
            )
    cells = {run.cell.names: run.cell for run in runs}
    return {names: Summary(cells[names], tuple(group), best) for names, group in figures.items()}


def seconds_per_kimg(run: Run) -> float | None:
    """The median over the ticks; None before the first."""
    if run.run_dir is None:
        return None
    try:
        seconds = read_stats(run.run_dir).get("Timing/sec_per_kimg", np.zeros(0))
    except UserError:
        return None
    return float(np.nanmedian(seconds)) if np.isfinite(seconds).any() else None


def to_csv(table: Table, runs: Sequence[Run]) -> str:
    """A line for each metric of each run: last and best figure, and the protocol."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = [axis.name for axis in table.axis]
    writer.writerow([*axes, "seed", "state", "metric", "last", "best", "best_kimg", "kimg", *_PROTOCOL[1:], "folder"])
    for run in runs:
        for name, figure in figures_of(run).items():
            protocol = [getattr(figure.protocol, key) for key in _PROTOCOL[1:]]
            values = [figure.last, figure.best, figure.best_kimg, figure.kimg]
            writer.writerow([*run.cell.names, run.seed, run.state, name, *values, *protocol, _within(run)])
    return text.getvalue()


def _within(run: Run) -> str:
    """The run's folder, relative to the table's."""
    assert run.run_dir is not None
    return run.run_dir.relative_to(run.folder.parent.parent).as_posix()
