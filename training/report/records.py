"""What a run wrote down: read again for charts, reports and notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import UserError

__all__ = ["STATS", "MetricCurve", "read_lines", "read_metrics", "read_stats"]

STATS = "stats.jsonl"
_LARGEST = 1e30


def read_stats(run_dir: str | Path) -> dict[str, np.ndarray]:
    """The figures of a run's log, each as a curve.

    Args:
        run_dir: the folder of a run.

    Returns:
        For each name in stats.jsonl its mean at every tick, float64; NaN where it was not measured or not finite.
        `Progress/kimg` says when.

    Raises:
        UserError: the folder holds no stats.jsonl.
    """
    path = Path(run_dir) / STATS
    if not path.is_file():
        raise UserError(f"'{run_dir}' holds no {STATS}; give the folder of a run, such as runs/00000-...")
    ticks = [tick for tick in read_lines(path) if "Progress/kimg" in tick]
    names = dict.fromkeys(name for tick in ticks for name in tick)

    def value(tick: dict[str, Any], name: str) -> float:
        stat = tick.get(name)
        return _number(stat.get("mean") if isinstance(stat, dict) else stat)  # the time stamp stands alone

    return {name: np.array([value(tick, name) for tick in ticks]) for name in names}


@dataclass(frozen=True)
class MetricCurve:
    """A metric of a run's snapshots.

    Attributes:
        main: the name of its main value; `kid5k_full` of `kid5k_full` and `kid5k_full_stderr`.
        values: by name, then by kimg.
    """

    main: str
    values: dict[str, dict[float, float]]


def read_metrics(run_dir: str | Path) -> dict[str, MetricCurve]:
    """The metrics of a run's snapshots, by the name that `--metrics` gave them.

    Args:
        run_dir: the folder of a run, also of an official checkout: there the snapshot's name says when it was.
    """
    curves: dict[str, MetricCurve] = {}
    for path in sorted(Path(run_dir).glob("metric-*.jsonl")):
        values: dict[str, dict[float, float]] = {}
        for line in read_lines(path):
            found = re.search(r"(\d+)\.pkl$", str(line.get("snapshot_pkl")))
            kimg = _number(line.get("kimg") if found is None else float(found[1]))
            results = line.get("results")
            for name, value in results.items() if isinstance(results, dict) and np.isfinite(kimg) else ():
                values.setdefault(name, {})[kimg] = _number(value)
        if values:
            curves[path.stem.removeprefix("metric-")] = MetricCurve(next(iter(values)), values)
    return curves


def _number(value: Any) -> float:
    """NaN for what is none, and for what no chart can show."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST else float("nan")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl file; a line that a kill cut short, or that holds something else, is left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record
