"""A run at a glance: stats.jsonl drawn as chart.png."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dnnlib.files import write_atomic

__all__ = ["save_chart"]


@dataclass(frozen=True)
class Panel:
    """One set of axes: what it shows, and which figures of stats.jsonl, by label."""

    title: str
    lines: dict[str, str]


PANELS = (
    Panel("D's scores (logits)", {"real": "Loss/scores/real", "fake": "Loss/scores/fake"}),
    Panel(
        "D's scores, not augmented",
        {"training": "Overfit/train", "held out": "Overfit/holdout", "fake": "Overfit/fake"},
    ),
    Panel("Overfitting gap", {"(training - held out) / (training - fake)": "Overfit/gap"}),
    Panel("Distillation (unweighted)", {"AGKD": "Loss/KD/agkd", "CGKD": "Loss/KD/cgkd"}),
    Panel(
        "Fakes, as the teacher sees them",
        {"alike (diversity)": "Loss/KD/diversity", "apart from reals (match)": "Loss/KD/match"},
    ),
    Panel(
        "Pull of distillation / of the game",
        {"at D's feature": "Loss/KD/grad_ratio", "at G's images": "Loss/KD/grad_ratio_G"},
    ),
    Panel("Share of the teacher that D explains", {"training": "KD/explained", "held out": "KD/explained_holdout"}),
)


MOST_COLUMNS = 3


def save_chart(run_dir: Path) -> bool:
    """Draws the panels for which the run has figures.

    Returns:
        False where there is nothing to draw, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    stats = run_dir / "stats.jsonl"
    ticks = [json.loads(line) for line in stats.read_text(encoding="utf-8").splitlines()] if stats.is_file() else []
    panels = [panel for panel in PANELS if any(name in tick for tick in ticks for name in panel.lines.values())]
    if not panels:
        return False
    columns = min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for label, name in panel.lines.items():
            # A figure that is missing or not finite (null) leaves a gap.
            points = [(tick["Progress/kimg"]["mean"], tick.get(name, {}).get("mean")) for tick in ticks]
            if any(value is not None for _, value in points):
                kimg, values = zip(*points, strict=True)
                axes.plot(kimg, [float("nan") if value is None else value for value in values], ".-", label=label)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("kimg")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    write_atomic(run_dir / "chart.png", lambda partial: figure.savefig(partial, dpi=100))
    return True
