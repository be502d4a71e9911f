"""chart.png: the numbers in stats.jsonl as curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnnlib.files import write_atomic
from kd_plugin import TermInfo
from training.report.records import STATS, read_stats

__all__ = ["save_chart"]


@dataclass(frozen=True)
class Panel:
    """One set of axes: what it shows, and which figures of stats.jsonl, by label."""

    title: str
    lines: dict[str, str]


_BEFORE_TERMS = (
    Panel("D's scores (logits)", {"real": "Loss/scores/real", "fake": "Loss/scores/fake"}),
    Panel(
        "D's scores, not augmented",
        {"training": "Overfit/train", "held out": "Overfit/holdout", "fake": "Overfit/fake"},
    ),
    Panel("Overfitting gap", {"(training - held out) / (training - fake)": "Overfit/gap"}),
)
_AFTER_TERMS = (
    Panel(
        "Gradient of distillation / adversarial",
        {"at D's feature": "Loss/KD/grad_ratio", "at G's images": "Loss/KD/grad_ratio_G"},
    ),
    Panel("Fraction of the teacher that D predicts", {"training": "KD/explained", "held out": "KD/explained_holdout"}),
)
MOST_COLUMNS = 3


def save_chart(run_dir: Path, terms: Sequence[TermInfo] = ()) -> bool:
    """Draw the panels for which the run has numbers.

    Args:
        run_dir: holds stats.jsonl.
        terms: of the distillation; each, and each of its parts, is a line in the panel of its side.

    Returns:
        False where there is nothing to draw, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    stats = read_stats(run_dir) if (run_dir / STATS).is_file() else {}
    panels = [*_BEFORE_TERMS, *_term_panels(terms), *_AFTER_TERMS]
    panels = [panel for panel in panels if any(name in stats for name in panel.lines.values())]
    if not panels:
        return False
    columns = min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for label, name in panel.lines.items():
            if name in stats and np.isfinite(stats[name]).any():  # NaN leaves a gap
                axes.plot(stats["Progress/kimg"], stats[name], ".-", label=label)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("kimg")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    write_atomic(run_dir / "chart.png", lambda partial: figure.savefig(partial, dpi=100))
    return True


def _term_panels(terms: Sequence[TermInfo]) -> list[Panel]:
    """One for the terms of D and one for those of G."""
    panels = []
    for side, title in (("D", "Terms of D (unweighted)"), ("G", "Terms of G (unweighted)")):
        names: dict[str, str] = {}
        for term in (term for term in terms if side in term.sides):
            names |= {term.label: term.name} | {f"{term.label} {part}": name for part, name in term.part_names.items()}
        panels.append(Panel(title, {label: f"Loss/KD/{name}" for label, name in names.items()}))
    return panels
