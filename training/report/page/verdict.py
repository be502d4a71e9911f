"""What the figures of a run say about overfitting, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dnnlib.errors import UserError
from training.metrics import parse_metrics
from training.report.page.findings import Findings
from training.report.page.record import RunRecord
from training.report.panels import LARGE_GAP
from training.report.records import MetricCurve

__all__ = ["BAD", "GOOD", "NEUTRAL", "Verdict", "verdicts"]

GOOD, NEUTRAL, BAD = "good", "neutral", "bad"
_SMALL_GAP = 0.2
_MUCH_WORSE = 0.1  # than the best, relative to it
_SURE = 2.0  # standard errors
_MANY_NEARER, _FEW_NEARER = 0.6, 0.3  # chance that a sample is nearer to a training image than an unseen image is
_NEAR, _MANY_NEAR = 0.05, 0.1  # share of unseen images that are very near; of samples
_NO_DIRECTION = ("div",)  # 1 is best
_OFFICIAL = {"fid": False, "kid": False, "pr": True, "is": True, "ppl": False, "eq": True}  # higher is better


@dataclass(frozen=True)
class Verdict:
    """`kind`: good, neutral or bad."""

    kind: str
    text: str


def verdicts(run: RunRecord, findings: Findings) -> list[Verdict]:
    """One for the gap, one for each metric, one for the samples that were looked at."""
    of_metrics = (line for name, curve in run.metrics.items() for line in _of_metric(name, curve))
    return [*_of_gap(run), *of_metrics, *_of_samples(findings)]


def _of_gap(run: RunRecord) -> Iterator[Verdict]:
    gap = run.stats.get("Overfit/gap", np.zeros(0))
    known = np.flatnonzero(np.isfinite(gap))
    if not len(known):
        if "Overfit/train" in run.stats:
            yield Verdict(NEUTRAL, "Overfitting gap: none, D does not tell training images from generated ones")
        elif run.stats and run.is_ours:
            yield Verdict(NEUTRAL, "Overfitting gap: not measured; --holdout=N keeps N images aside for it")
        return
    last, kimg = float(gap[known[-1]]), run.stats["Progress/kimg"]
    text = f"Overfitting gap {last:.2f} at {kimg[known[-1]]:.4g} kimg (0: none; 1: D has memorised its training images)"
    if last > LARGE_GAP:
        above = known[gap[known] > LARGE_GAP]
        text += (
            f", first above {LARGE_GAP:g} at {kimg[above[0]]:.4g} kimg. What helps: more images, --aug=ada or "
            "--diffaugment, and stopping at the best snapshot"
        )
    yield Verdict(BAD if last > LARGE_GAP else GOOD if last < _SMALL_GAP else NEUTRAL, text)


def _of_metric(metric: str, curve: MetricCurve) -> Iterator[Verdict]:
    values = {kimg: value for kimg, value in curve.values[curve.main].items() if math.isfinite(value)}
    if not values:
        return
    at_end, last = max(values), values[max(values)]
    if metric.startswith("mem"):
        share = curve.values.get(f"{metric}_share", {}).get(at_end, 0.0)
        held_out = curve.values.get(f"{metric}_held_out", {}).get(at_end, 0.0)
        unseen = f"{held_out:.0f} unseen images" if held_out > 1 else "each training image and the others"
        yield _of_copies(f"{metric} at {at_end:.4g} kimg", last, share, unseen)
        return
    higher = _higher_is_better(metric)
    if higher is None or len(values) == 1:
        yield Verdict(NEUTRAL, f"{curve.main} {last:.4g} at {at_end:.4g} kimg")
        return
    at_best = (max if higher else min)(values, key=lambda kimg: values[kimg])
    best, error = values[at_best], curve.values.get(f"{metric}_stderr", {})
    noise = _SURE * math.hypot(error.get(at_best, 0.0), error.get(at_end, 0.0))
    worse = (best - last) if higher else (last - best)
    text = f"{curve.main} {last:.4g} at {at_end:.4g} kimg, the best {best:.4g} at {at_best:.4g} kimg"
    if worse > max(_MUCH_WORSE * abs(best), noise):
        yield Verdict(BAD, f"{text}: training went on too long, or became unstable; use the best snapshot")
    else:
        yield Verdict(GOOD, f"{text}: not clearly worse than its best")


def _of_samples(findings: Findings) -> Iterator[Verdict]:
    if findings.copies is not None:
        copies = findings.copies
        yield _of_copies(f"Samples of {findings.snapshot}", copies.auc, copies.share, findings.unseen)


def _of_copies(what: str, auc: float, share: float, unseen: str) -> Verdict:
    """See training.metrics.neighbours.Copying."""
    text = (
        f"{what}: {share:.0%} lie very near to a training image ({_NEAR:.0%} are expected), and a sample is nearer to "
        f"one than an unseen image is in {auc:.0%} of the cases (50%); calibrated on {unseen}"
    )
    if auc > _MANY_NEARER or share > _MANY_NEAR:
        return Verdict(BAD, f"{text}. Look for copies below")
    if auc < _FEW_NEARER:
        return Verdict(NEUTRAL, f"{text}. No copies, but the samples are still unlike the training images")
    return Verdict(GOOD, f"{text}. No sign of copying")


def _higher_is_better(metric: str) -> bool | None:
    """None where neither is."""
    if metric.startswith(_NO_DIRECTION):
        return None
    try:
        return parse_metrics(metric)[0].family.higher_is_better
    except (UserError, IndexError):
        return next((higher for name, higher in _OFFICIAL.items() if metric.startswith(name)), None)
