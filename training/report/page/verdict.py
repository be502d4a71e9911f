"""What the curves of a run say about overfitting, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dnnlib.errors import UserError
from training.metrics import parse_metrics
from training.report.page.record import RunRecord
from training.report.records import MetricCurve

__all__ = ["Verdict", "verdicts"]

GOOD, NEUTRAL, BAD = "good", "neutral", "bad"
_MUCH_WORSE = 0.1  # than the best, relative to it
_SURE = 2.0  # standard errors
_LARGE_GAP, _SOME_GAP = 0.5, 0.2
_COPIES = 0.6  # chance that a sample is nearer to a training image than an unseen image is; 0.5: none
_HIGHER = ("pr", "is")  # of official metrics that parse_metrics does not know


@dataclass(frozen=True)
class Verdict:
    """`kind`: good, neutral or bad."""

    kind: str
    text: str


def verdicts(run: RunRecord) -> list[Verdict]:
    """One for the gap, one for each metric, one for copies."""
    return [*_of_gap(run), *(line for name, curve in run.metrics.items() for line in _of_metric(name, curve))]


def _of_gap(run: RunRecord) -> Iterator[Verdict]:
    gap = run.stats.get("Overfit/gap", np.zeros(0))
    known = np.flatnonzero(np.isfinite(gap))
    if not len(known):
        if run.stats and run.is_ours:
            yield Verdict(NEUTRAL, "Overfitting gap: not measured; --holdout=N keeps N images aside for it")
        return
    last, kimg = float(gap[known[-1]]), run.stats["Progress/kimg"]
    text = f"Overfitting gap {last:.2f} at {kimg[known[-1]]:.4g} kimg (0: none; 1: D has memorised its training images)"
    above = known[gap[known] > _LARGE_GAP]
    if last > _LARGE_GAP:
        text += (
            f", first above {_LARGE_GAP:g} at {kimg[above[0]]:.4g} kimg. What helps: more images, --aug=ada or "
            "--diffaugment, and stopping at the best snapshot"
        )
    yield Verdict(BAD if last > _LARGE_GAP else GOOD if last < _SOME_GAP else NEUTRAL, text)


def _of_metric(metric: str, curve: MetricCurve) -> Iterator[Verdict]:
    values = {kimg: value for kimg, value in curve.values[curve.main].items() if math.isfinite(value)}
    if not values:
        return
    at_end, last = max(values), values[max(values)]
    if metric.startswith("mem"):
        many = last > _COPIES
        meaning = "samples lie nearer to training images than unseen images do" if many else "no sign of copying"
        text = f"{curve.main} {last:.2f} at {at_end:.4g} kimg: {meaning} (0.5: equally near)"
        yield Verdict(BAD if many else GOOD, text)
        return
    higher = _higher_is_better(metric)
    at_best = (max if higher else min)(values, key=lambda kimg: values[kimg])
    best, error = values[at_best], curve.values.get(f"{metric}_stderr", {})
    noise = _SURE * math.hypot(error.get(at_best, 0.0), error.get(at_end, 0.0))
    worse = (best - last) if higher else (last - best)
    text = f"{curve.main} {last:.4g} at {at_end:.4g} kimg, the best {best:.4g} at {at_best:.4g} kimg"
    if worse > max(_MUCH_WORSE * abs(best), noise):
        yield Verdict(BAD, f"{text}: training went on too long, or became unstable; use the best snapshot")
    else:
        yield Verdict(GOOD, f"{text}: not clearly worse than its best")


def _higher_is_better(metric: str) -> bool:
    try:
        return parse_metrics(metric)[0].family.higher_is_better
    except (UserError, IndexError):
        return metric.startswith(_HIGHER)
