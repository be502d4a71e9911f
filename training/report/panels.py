"""Which figures of a run stand together in one set of axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kd_plugin import TermInfo

__all__ = ["AFTER_TERMS", "LARGE_GAP", "OVERFITTING", "SCORES", "Panel", "panels_of_names", "term_panels"]


@dataclass(frozen=True)
class Panel:
    """What it shows, and which figures of stats.jsonl, by label; `alarming`: values that are shaded."""

    title: str
    lines: dict[str, str]
    alarming: tuple[float, float] | None = None


LARGE_GAP = 0.5  # more than half of what D knows of its training images is their memory
SCORES = Panel("D's scores (logits)", {"real": "Loss/scores/real", "fake": "Loss/scores/fake"})
OVERFITTING = (
    Panel(
        "D's scores, not augmented",
        {"training": "Overfit/train", "held out": "Overfit/holdout", "fake": "Overfit/fake"},
    ),
    Panel("Overfitting gap", {"(training - held out) / (training - fake)": "Overfit/gap"}, (LARGE_GAP, 1.0)),
)
AFTER_TERMS = (
    Panel(
        "Gradient of distillation / adversarial",
        {"at D's feature": "Loss/KD/grad_ratio", "at G's images": "Loss/KD/grad_ratio_G"},
    ),
    Panel("Fraction of the teacher that D predicts", {"training": "KD/explained", "held out": "KD/explained_holdout"}),
)
_KD = "Loss/KD/"
_NO_TERMS = ("grad_ratio", "grad_ratio_G", "scale", "total")  # under Loss/KD/ too


def term_panels(terms: Sequence[TermInfo]) -> list[Panel]:
    """One for the terms of D and one for those of G; each part of a term is a line of its own."""
    panels = []
    for side, title in (("D", "Terms of D (unweighted)"), ("G", "Terms of G (unweighted)")):
        names: dict[str, str] = {}
        for term in (term for term in terms if side in term.sides):
            names |= {term.label: term.name} | {f"{term.label} {part}": name for part, name in term.part_names.items()}
        panels.append(Panel(title, {label: _KD + name for label, name in names.items()}))
    return panels


def panels_of_names(names: Iterable[str]) -> list[Panel]:
    """One for each term that a run's stats.jsonl names, whatever program wrote it."""
    terms: dict[str, dict[str, str]] = {}
    for name in (name.removeprefix(_KD) for name in names if name.startswith(_KD)):
        term, _, part = name.partition("/")
        if term not in _NO_TERMS and not term.startswith("scale_"):
            terms.setdefault(term, {})[part or term] = _KD + name
    return [Panel(f"Term {term} (unweighted)", lines) for term, lines in terms.items()]
