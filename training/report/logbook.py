"""The log of a run: the console, log.txt, and stats.jsonl (one line per tick)."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from dnnlib.files import errors_name, write_atomic
from torch_utils.stats import Stat
from training.report.records import STATS
from training.report.trackers import Trackers

__all__ = ["Logbook"]


class Logbook:
    """Lines go to the console and to log.txt; on a terminal a progress bar with an ETA stands below them.

    Without a folder it writes nothing: of several processes only one logs.
    """

    def __init__(self, run_dir: Path | None, total_nimg: int, start_nimg: int = 0) -> None:
        self._silent = run_dir is None
        self._trackers: Trackers | None = None
        if run_dir is None:
            return
        self._stats = run_dir / STATS
        for path in (self._stats, *run_dir.glob("metric-*.jsonl")):
            _drop_later_lines(path, start_nimg / 1000)
        self._log = open(run_dir / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self._bar = tqdm(
            total=total_nimg / 1000,
            initial=start_nimg / 1000,
            unit="kimg",
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} kimg [{elapsed}, {remaining} left]",
            disable=not sys.stderr.isatty(),
            leave=False,
            mininterval=0.5,
        )

    def follow(self, trackers: Trackers) -> None:
        """Let them see ticks, pictures and metrics from now on."""
        self._trackers = trackers

    def write(self, text: str) -> None:
        if self._silent:
            return
        tqdm.write(text)
        with errors_name(self._log.name):
            self._log.write(text + "\n")
            self._log.flush()

    def advance(self, nimg: int) -> None:
        if not self._silent:
            self._bar.update(nimg / 1000)

    def tick(self, numbers: Mapping[str, Stat]) -> None:
        """Appends one line of JSON: {num, mean, std} by name, null for what is not finite; `timestamp` is seconds
        since 1970."""
        if self._silent:
            return
        line = {name: _jsonable(stat) for name, stat in numbers.items()}
        with errors_name(self._stats), open(self._stats, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "timestamp": time.time()}, allow_nan=False) + "\n")

        if "Progress/kimg" in numbers:
            means = {name: stat.mean for name, stat in numbers.items() if math.isfinite(stat.mean)}
            self.scalars(means, round(numbers["Progress/kimg"].mean * 1000))

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """For trackers alone."""
        if self._trackers is not None:
            self._trackers.scalars(values, nimg)

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """For trackers alone."""
        if self._trackers is not None:
            self._trackers.picture(name, path, nimg)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trackers is not None:
            self._trackers.close()
        if not self._silent:
            self._bar.close()
            self._log.close()


def _jsonable(stat: Stat) -> dict[str, float | None]:
    """null for NaN, which JSON does not have."""
    values = {"num": stat.num, "mean": stat.mean, "std": stat.std}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _drop_later_lines(path: Path, kimg: float) -> None:
    """Drop ticks that a killed run logged after its last save; the continuation repeats them."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            if (values["kimg"] if "kimg" in values else values["Progress/kimg"]["mean"]) <= kimg:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # a line cut short by the kill
    write_atomic(path, "".join(line + "\n" for line in kept))
