"""docs/evidence.png: KID of every form, one dot per seed. Drawn by `python -m studies.tables`."""

from __future__ import annotations

from pathlib import Path

from studies.results import CEILING, DEFAULT, NONE, Results

__all__ = ["CONTROLS", "EVIDENCE", "SCRAMBLED", "save_figure"]

SCRAMBLED = "control: the same, scrambled teacher"
EVIDENCE = {  # form: label, from top to bottom
    NONE: "no distillation",
    CEILING: "no distillation, all images",
    DEFAULT: "the default: all four terms",
    f"{DEFAULT}, scrambled teacher": SCRAMBLED,
    "critic, augmented by itself": "critic alone",
    "matching at stages, drift": "matching alone",
    "default, embedding only": "matching the embedding + AGKD + CGKD",
    "matching": "matching the embedding alone",
    "matching, scrambled teacher": SCRAMBLED,
    "matching, weight 1, teacher of drawings": "matching the embedding, teacher of drawings",
    "matching, weight 1, scrambled teacher of drawings": SCRAMBLED,
    "AGKD (paper)": "AGKD as published",
    "AGKD (paper), shuffled teacher": "control: AGKD, shuffled teacher",
    "CGKD (paper)": "CGKD as published",
    "CGKD (paper), shuffled teacher": "control: CGKD, shuffled teacher",
    "diversity (paper)": "diversity, with its gradient",
    "whole method (paper)": "whole method as published",
}
CONTROLS = {
    DEFAULT: f"{DEFAULT}, scrambled teacher",
    "matching": "matching, scrambled teacher",
    "AGKD (paper)": "AGKD (paper), shuffled teacher",
    "CGKD (paper)": "CGKD (paper), shuffled teacher",
}
TITLES = {
    "drawings": "100 drawings, 120 kimg",
    "cats": "90 photos of cats, 30 kimg",
    "retrievers": "90 photos of retrievers, 30 kimg",
}
BASELINE, CONTROL, METHOD, CHOSEN = "#444444", "#b07c1e", "#2166ac", "#1b7837"


def colour(form: str) -> str:
    if form in (NONE, CEILING):
        return BASELINE
    if form == DEFAULT:
        return CHOSEN
    return CONTROL if EVIDENCE[form].startswith("control") else METHOD


def save_figure(results: dict[str, Results], folder: Path) -> None:
    """Draw `folder`/evidence.png: a dot per seed, a bar at the mean, a line at the baseline's mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    forms = list(EVIDENCE)
    for panel, (name, part) in zip(panels, results.items(), strict=True):
        for place, form in enumerate(forms):
            values = [part.kid(form, seed) for seed in part.seeds(form)]
            if not values:
                continue
            panel.plot(values, [place] * len(values), "o", color=colour(form), alpha=0.75, markersize=6)
            mean = sum(values) / len(values)
            panel.plot([mean, mean], [place - 0.32, place + 0.32], color=colour(form), linewidth=2)
        baseline = part.mean_kid(NONE)
        if baseline is not None:
            panel.axvline(baseline.mean, color=BASELINE, linewidth=0.8, linestyle=":")
        panel.set_title(TITLES[name], fontsize=10)
        panel.set_xlabel("KID (lower is better)")
        panel.set_xlim(left=0)
        panel.grid(axis="y", color="#eeeeee")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(forms)), EVIDENCE.values(), fontsize=8)
    panels[0].invert_yaxis()
    figure.savefig(folder / "evidence.png", metadata={"Software": None})
