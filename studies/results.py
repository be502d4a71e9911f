"""The results of the few-shot study: reading them, and the statistics of the tables and the figure."""

from __future__ import annotations

import json
import math
import statistics
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["CEILING", "DEFAULT", "FORMS", "NONE", "RESULTS", "Estimate", "Results", "estimate", "load_results"]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NONE, CEILING = "none", "all images"  # without distillation, on few images and on many
DEFAULT = "default, critic, matching at stages, drift"  # what train.py does
LAST = 4  # snapshots whose KID is averaged
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95 % quantiles of Student's t by degrees of freedom

FORMS: dict[str, tuple[str, ...]] = {
    form["name"]: tuple(form["flags"])
    for form in tomllib.loads((HERE / "forms.toml").read_text(encoding="utf-8"))["form"]
}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        error: standard error of the mean; None for one value.
        count: number of values.
    """

    mean: float
    error: float | None
    count: int

    @property
    def interval(self) -> float | None:
        """Half the width of the 95 % confidence interval (Student's t)."""
        return None if self.error is None else T_95[self.count - 1] * self.error


def estimate(values: list[float]) -> Estimate | None:
    """None without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(statistics.mean(values), error, len(values))


@dataclass(frozen=True)
class Results:
    """All runs of one study: by form, then by seed, the record that the runner wrote."""

    runs: dict[str, dict[int, dict[str, Any]]]

    @cached_property
    def forms(self) -> list[str]:
        """In the order of forms.toml; those it has no longer come last."""
        return [*(form for form in FORMS if form in self.runs), *(form for form in self.runs if form not in FORMS)]

    def seeds(self, form: str) -> list[int]:
        return sorted(self.runs.get(form, {}))

    def kid(self, form: str, seed: int) -> float:
        """The mean of a run's last snapshots."""
        return statistics.mean(self.runs[form][seed]["kid"][-LAST:])

    def mean_kid(self, form: str) -> Estimate | None:
        return estimate([self.kid(form, seed) for seed in self.seeds(form)])

    def mean_of(self, form: str, *path: str) -> Estimate | None:
        """Of a value inside the records, over the seeds that have it."""
        values: list[Any] = []
        for seed in self.seeds(form):
            value: Any = self.runs[form][seed]
            for key in path:
                value = None if value is None else value.get(key)
            values.append(value)
        return estimate([value for value in values if value is not None])

    def difference(self, form: str, other: str = NONE) -> Estimate | None:
        """KID of `form` minus that of `other`, paired by seed: the runs of a seed share images and random draws."""
        common = [seed for seed in self.seeds(form) if seed in self.runs.get(other, {})]
        return estimate([self.kid(form, seed) - self.kid(other, seed) for seed in common])

    def share_closed(self, form: str) -> tuple[float, float | None] | None:
        """The part of the distance between few and many images that a form closes, and its jackknife error.

        Of mean distances over the seeds that all three have: within one seed that distance may be nothing. None where
        many images are no better than few: then there is nothing to close.
        """
        three = (NONE, form, CEILING)
        seeds = sorted(set.intersection(*(set(self.seeds(name)) for name in three)))

        def share(chosen: list[int]) -> float:
            none, value, ceiling = (statistics.mean(self.kid(name, seed) for seed in chosen) for name in three)
            return (none - value) / (none - ceiling) if none > ceiling else math.nan

        if not seeds or math.isnan(share(seeds)):
            return None
        if len(seeds) == 1:
            return share(seeds), None
        others = [share([seed for seed in seeds if seed != left_out]) for left_out in seeds]
        if any(map(math.isnan, others)):
            return None
        return share(seeds), math.sqrt((len(seeds) - 1) * statistics.pvariance(others))


def load_results(path: Path) -> Results:
    """Of a .jsonl file; empty if it does not exist."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        row = json.loads(line)
        runs.setdefault(row["form"], {})[row["seed"]] = row
    return Results(runs)
