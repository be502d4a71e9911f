"""The study's table: its scores are the formula, and what is missing is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.few_shot import CEILING, FORMS, LAST, NONE, Run, main


def row(form: str, seed: int, kid: float, **more: Any) -> dict[str, Any]:
    figures = {"gap": 0.5, "explained": None, "explained_holdout": None, "pull": None, "mem": {"mem1k_auc": 0.4}}
    return {"form": form, "seed": seed, "kid": [9.0, *[kid] * LAST], **figures, **more}


def table(folder: Path, *rows: dict[str, Any]) -> dict[str, list[str]]:
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    result = CliRunner().invoke(main, ["table", f"--out={folder}"])
    assert result.exit_code == 0, result.output
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.output.splitlines()]
    return {line[0]: line[1:] for line in cells}


def test_the_share_closed_is_of_the_means_over_common_seeds(tmp_path: Path) -> None:
    form = "standardised, balance 1"
    found = table(
        tmp_path,
        *(row(NONE, seed, kid) for seed, kid in enumerate((0.4, 0.8, 0.5))),
        *(row(CEILING, seed, kid) for seed, kid in enumerate((0.2, 0.4))),
        row(form, 0, 0.3, explained=0.2, explained_holdout=0.1),
        row(form, 1, 0.5, explained=0.4, explained_holdout=0.1),
        row(form, 2, 0.1),  # no ceiling was trained with this seed
    )
    assert found[NONE][:3] == ["3", "0.57 ± 0.12", "0.00 ± 0.00"]
    assert found[CEILING][2] == "1.00 ± 0.00"
    # (.6 - .4) / (.6 - .3); with one seed left out (.8 - .5) / (.8 - .4) and (.4 - .3) / (.4 - .2)
    assert found[form][2] == "0.67 ± 0.12"
    assert found[form][4] == "0.30 ± 0.10 / 0.10 ± 0.00"


def test_without_a_distance_none_is_closed(tmp_path: Path) -> None:
    """Many images no better than few, which short runs show: a share of less than nothing would look like a success."""
    rows = [row(form, seed, kid) for form, kid in ((NONE, 0.5), (CEILING, 0.6), ("match", 0.3)) for seed in (0, 1)]
    assert [cells[2] for cells in list(table(tmp_path, *rows).values())[2:]] == ["", "", ""]


def test_no_figure_is_no_number(tmp_path: Path) -> None:
    found = table(tmp_path, row("release", 0, 0.5))
    assert found["release"][:4] == ["1", "0.50", "", "0.50"]


def test_every_form_is_a_command(tmp_path: Path) -> None:
    """Its flags are flags of train.py, and its folder a name for a folder."""
    from kd_plugin.config.kd import KDConfig
    from kd_plugin.config.schema import options_of
    from kd_plugin.errors import flag

    known = {item.flag_name(flag) for item in options_of(KDConfig)} | {"--kd-variant"}
    for form, flags in FORMS.items():
        assert {flag.partition("=")[0] for flag in flags} <= known, form
        assert set(Run(form, 0).name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
    assert len({Run(form, 0).name for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--form=agkd"], "--form: 'agkd' is unknown; known are: none, all images"),
        (["--few=x.zip"], "--few and --all: give both, or neither"),
    ],
)
def test_mistakes(tmp_path: Path, flags: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["run", f"--out={tmp_path}", "--detector=x.pt", *flags])
    assert result.exit_code == 2
    assert message in result.output
