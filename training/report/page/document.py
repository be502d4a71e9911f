"""The page itself: what is known of the runs, put into page.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from kd_plugin.config.schema import to_dict
from training.config import TrainConfig, preset_row
from training.report.page.curves import COLORS, overfitting_curves, training_curves
from training.report.page.findings import Findings, Judge, Pair, Where
from training.report.page.pictures import evenly, file_uri, pixels_uri
from training.report.page.record import RunRecord
from training.report.page.verdict import verdicts

__all__ = ["render"]

MOST_GRIDS = 24  # of a run in the page
_TEMPLATE = Path(__file__).with_name("page.html")
_ABSENT = "-"


@dataclass(frozen=True)
class Grids:
    """Image grids of a run. `uris` by kimg; `reals` of its training images; `left_out` are not shown."""

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
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise UserError("the report needs jinja2, which is not installed: pip install jinja2") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["picture"] = pixels_uri
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    grids = [_grids(run) for run in runs]
    judge = None if where is None else Judge.of(runs, where)
    return template.render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=[
            {
                "record": run,
                "name": name,
                "color": COLORS[min(place, len(COLORS) - 1)],
                "verdicts": verdicts(run),
                "grids": grids[place],
                "findings": Findings(problem="--samples=0 was given") if judge is None else judge.examine(run),
            }
            for place, (run, name) in enumerate(zip(runs, names(runs), strict=True))
        ],
        moments=sorted({kimg for each in grids for kimg in each.uris}),
        overfitting=overfitting_curves(runs),
        training=training_curves(runs),
        differences=differences(runs),
        pair_rows=_pair_rows,
    )


def names(runs: Sequence[RunRecord]) -> list[str]:
    """Their folders' names; with the folders above if two are called alike."""
    short = [run.name for run in runs]
    if len(set(short)) == len(short):
        return short
    return [f"{run.folder.resolve().parent.name}/{run.name}" for run in runs]


def differences(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Options in which the runs differ, with the value of each; of one run, those that are not its preset's."""
    if len(runs) == 1:
        usual = _usual(runs[0])
        options = runs[0].options
        return [
            (key, [_text(usual, key), _text(options, key)])
            for key in options
            if usual and _text(usual, key) != _text(options, key)
        ]
    keys = dict.fromkeys(key for run in runs for key in run.options)
    rows = [(key, [_text(run.options, key) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _usual(run: RunRecord) -> dict[str, Any]:
    """The defaults and the preset's values; empty where they are unknown (an official run; a preset that depends on the
    images' size)."""
    name, resolution = run.options.get("cfg"), run.options.get("resolution")
    if not run.is_ours or (name == "auto" and resolution is None):
        return {}
    try:
        preset = preset_row(str(name), resolution or 0, run.options.get("gpus", 1))
    except UserError:  # of another version
        return {}
    config = to_dict(TrainConfig(data=run.options["data"], **{**preset, "cfg": name}))
    return {**config, **{f"kd.{key}": value for key, value in config.pop("kd").items()}}


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options.get(key, _ABSENT)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grids(run: RunRecord) -> Grids:
    moments = evenly(list(run.grids), MOST_GRIDS)
    reals = run.folder / "reals.png"
    return Grids(
        uris={kimg: file_uri(run.grids[kimg]) for kimg in moments},
        reals=file_uri(reals) if reals.is_file() else "",
        left_out=len(run.grids) - len(moments),
    )


def _pair_rows(findings: Findings) -> list[tuple[str, Sequence[Pair]]]:
    return [
        ("The samples nearest to a training image, each of these once", findings.closest),
        ("The first samples, not selected", findings.unselected),
    ]
