"""chart.png: the numbers in stats.jsonl as curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dnnlib.files import write_atomic
from kd_plugin import TermInfo
from training.report.panels import AFTER_TERMS, OVERFITTING, SCORES, term_panels
from training.report.records import STATS, read_stats

__all__ = ["save_chart"]

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
    panels = [SCORES, *OVERFITTING, *term_panels(terms), *AFTER_TERMS]
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
