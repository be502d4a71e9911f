"""The page itself: what is known of the runs, put into page.html."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from kd_plugin.config.schema import accepted_values, to_dict
from kd_plugin.errors import KDError
from training.config import TrainConfig
from training.presets import resolve
from training.report.page.curves import color, overfitting_curves, training_curves
from training.report.page.findings import Findings, Judge, Where
from training.report.page.pictures import evenly, file_uri
from training.report.page.record import RunRecord
from training.report.page.template import load_template
from training.report.page.verdict import verdicts
from training.resume import CONFIG

__all__ = ["render"]

MOST_GRIDS = 24  # of a run in the page
_TEMPLATE = Path(__file__).with_name("page.html")
_ABSENT, AUTO = "-", "auto"


@dataclass(frozen=True)
class Grids:
    """Image grids of a run. `uris` by kimg; `reals` of its training images; `left_out`: not shown, or damaged."""

    uris: dict[float, str]
    reals: str
    left_out: int


def render(runs: Sequence[RunRecord], where: Where | None) -> str:
    """The page as HTML that needs no other file.

    Args:
        runs: one or several.
        where: how to look at their snapshots; None: do not.

    Raises:
        UserError: a package that the page needs is missing.
    """
    template = load_template(_TEMPLATE)
    judge = None if where is None else Judge(runs, where)
    labelled = enumerate(zip(runs, names(runs), strict=True))
    shown = [_shown(run, name, color(place), judge) for place, (run, name) in labelled]
    return template.render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=shown,
        judge=judge,
        moments=sorted({kimg for run in shown for kimg in run["grids"].uris}),
        overfitting=overfitting_curves(runs),
        training=training_curves(runs),
        differences=differences(runs),
    )


def _shown(run: RunRecord, name: str, its_color: str, judge: Judge | None) -> dict[str, Any]:
    """What the template reads of a run."""
    findings = Findings(problem="--samples=0 was given") if judge is None else judge.examine(run)
    return {
        "record": run,
        "name": name,
        "color": its_color,
        "verdicts": verdicts(run, findings),
        "grids": _grids(run),
        "findings": findings,
        "again": shlex.join(["python", "train.py", f"--config={run.folder / CONFIG}"]),
    }


def names(runs: Sequence[RunRecord]) -> list[str]:
    """Their folders' names, with as many of the folders above as tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    depth = 1
    while len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def differences(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Options in which the runs differ, with the value of each; of one run, those that are not usual, after the usual
    value."""
    if len(runs) == 1:
        usual, options = _usual(runs[0]), runs[0].options
        rows = [(key, [_text(usual, key), _text(options, key)]) for key in options if usual.get(key) != AUTO]
        return [(key, values) for key, values in rows if usual and len(set(values)) > 1]
    keys = dict.fromkeys(key for run in runs for key in run.options)
    rows = [(key, [_text(run.options, key) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _usual(run: RunRecord) -> dict[str, Any]:
    """What the same images, preset and teacher give without further flags; empty where that is unknown: of an official
    run, or of a preset that depends on the images' size."""
    given: dict[str, Any] = {key: run.options[key] for key in ("data", "cfg") if key in run.options}
    if not run.is_ours or given.get("cfg") == AUTO:
        return {}
    try:
        config = to_dict(resolve(accepted_values(TrainConfig, given), {"teacher": run.teacher}, 0))
    except (UserError, KDError):  # of another version, or damaged
        return {}
    return {**config, **{f"kd.{key}": value for key, value in config.pop("kd").items()}}


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options.get(key, _ABSENT)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grids(run: RunRecord) -> Grids:
    moments = evenly(list(run.grids), MOST_GRIDS)
    reals = run.folder / "reals.png"
    uris = {kimg: uri for kimg in moments if (uri := file_uri(run.grids[kimg]))}
    return Grids(uris, file_uri(reals) if reals.is_file() else "", left_out=len(run.grids) - len(uris))
