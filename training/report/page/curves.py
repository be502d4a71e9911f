"""Curves of several runs as SVG: a colour is a run, a line style is a figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from training.report.page.record import RunRecord
from training.report.panels import AFTER_TERMS, OVERFITTING, SCORES, Panel, panels_of_names

__all__ = ["Drawing", "color", "draw_lines", "overfitting_curves", "training_curves"]

# Of Paul Tol's "bright" scheme, which people with colour blindness can tell apart; then shades of grey.
COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222222", "#999999")
_STYLES = ("-", "--", ":", "-.")
_REST = (
    Panel("ADA's p", {"p": "Progress/augment"}),
    Panel("Seconds per kimg", {"seconds": "Timing/sec_per_kimg"}),
    Panel("Fraction of the time spent on distillation", {"fraction": "Timing/kd_fraction"}),
)
Curve = tuple[Any, Any]  # kimg and values, of one length


@dataclass(frozen=True)
class Drawing:
    """A set of axes. `source` is a data URI; `about` says in words what is drawn."""

    title: str
    source: str
    about: str


def overfitting_curves(runs: Sequence[RunRecord]) -> list[Drawing]:
    """The gap and the scores that it is computed from; and every metric."""
    drawn = [_of_stats(panel, runs) for panel in reversed(OVERFITTING)]
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return [each for each in (*drawn, *(_of_metric(name, runs) for name in names)) if each is not None]


def training_curves(runs: Sequence[RunRecord]) -> list[Drawing]:
    """All others."""
    terms = panels_of_names(dict.fromkeys(name for run in runs for name in run.stats))
    drawn = (_of_stats(panel, runs) for panel in (SCORES, *terms, *AFTER_TERMS, *_REST))
    return [each for each in drawn if each is not None]


def _of_stats(panel: Panel, runs: Sequence[RunRecord]) -> Drawing | None:
    def lines(run: RunRecord) -> Iterator[tuple[str, Curve]]:
        for label, name in panel.lines.items():
            if name in run.stats and np.isfinite(run.stats[name]).any():
                yield label, (run.stats["Progress/kimg"], run.stats[name])

    return _draw(panel.title, [dict(lines(run)) for run in runs], list(panel.lines), panel.alarming)


def _of_metric(metric: str, runs: Sequence[RunRecord]) -> Drawing | None:
    """All its values but errors and counts; of one name each: the main value bare, others by their suffix."""

    def lines(run: RunRecord) -> Iterator[tuple[str, Curve]]:
        curve = run.metrics.get(metric)
        for name, values in {} if curve is None else curve.values.items():
            if not name.endswith(("_stderr", "_held_out", "_std")):
                yield name.removeprefix(f"{metric}_"), (list(values), list(values.values()))

    curves = [dict(lines(run)) for run in runs]
    return _draw(metric, curves, list(dict.fromkeys(label for each in curves for label in each)))


def _draw(
    title: str,
    curves: Sequence[dict[str, Curve]],
    labels: Sequence[str],
    alarming: tuple[float, float] | None = None,
) -> Drawing | None:
    """None where no run has a line."""
    if not any(curves):
        return None
    figure, axes = _figure()
    for number, of_run in enumerate(curves):
        for label, (kimg, values) in of_run.items():
            style = _STYLES[labels.index(label) % len(_STYLES)]
            axes.plot(kimg, values, style, color=color(number), marker="." if len(kimg) < 40 else "", linewidth=1.5)
    if alarming is not None:  # seen even where no curve is near
        axes.axhspan(*alarming, color="#EE6677", alpha=0.12, linewidth=0)
    if len(labels) > 1:
        keys = [axes.plot([], [], _STYLES[n % len(_STYLES)], color="black")[0] for n in range(len(labels))]
        axes.legend(keys, labels, fontsize=8, frameon=False)
    return Drawing(title, _data_uri(figure), f"{title}, over kimg: {', '.join(labels)}")


def draw_lines(title: str, lines: Mapping[str, Mapping[float, float]]) -> Drawing:
    """One line a name, over kimg; colours repeat with another style."""
    figure, axes = _figure(6.9, 3.8)
    for number, (name, curve) in enumerate(lines.items()):
        style, colour = _STYLES[number // len(COLORS) % len(_STYLES)], COLORS[number % len(COLORS)]
        marker = "." if len(curve) < 40 else ""
        axes.plot(list(curve), list(curve.values()), style, color=colour, marker=marker, linewidth=1.3, label=name)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, frameon=False, handlelength=3.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return Drawing(title, _data_uri(figure), f"{title}, over kimg: {', '.join(lines)}")


def color(number: int) -> str:
    """Of a run; the last one for all that are too many."""
    return COLORS[min(number, len(COLORS) - 1)]


def _figure(width: float = 4.6, height: float = 3.0) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("curves need matplotlib, which is not installed: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("kimg")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _data_uri(figure: Any) -> str:
    from matplotlib import rc_context

    text = io.BytesIO()
    # Letters as text, not as outlines; equal figures give equal bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "kd_plugin", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(text.getvalue()).decode()}"
