"""chart.png and views.png, and what a run says of itself at its start and end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from kd_plugin import TermInfo
from tests.host.conftest import SMALL
from training.data.dataset import ImageDataset
from training.presets import resolve
from training.report import chart
from training.report.chart import save_chart
from training.report.panels import Panel
from training.report.progress import forecast
from training.report.views import save_views
from training.session import Session

RunTrain = Callable[..., Result]


def write_stats(run_dir: Path, ticks: list[dict[str, float | None]]) -> None:
    lines = [json.dumps({name: {"num": 1, "mean": mean, "std": 0.0} for name, mean in tick.items()}) for tick in ticks]
    (run_dir / "stats.jsonl").write_text("".join(line + "\n" for line in lines))


def test_a_chart_has_a_panel_for_what_there_is(tmp_path: Path) -> None:
    plain: list[dict[str, float | None]] = [
        {"Progress/kimg": kimg, "Loss/scores/real": kimg, "Loss/scores/fake": -kimg} for kimg in (1.0, 2.0, 3.0)
    ]
    write_stats(tmp_path, plain)
    assert save_chart(tmp_path)
    narrow = Image.open(tmp_path / "chart.png").size
    gap: list[float | None] = [0.1, None, 0.3]  # a figure that was not finite
    write_stats(tmp_path, [tick | {"KD/explained": value} for tick, value in zip(plain, gap, strict=True)])
    assert save_chart(tmp_path)
    wide = Image.open(tmp_path / "chart.png").size
    assert wide == (2 * narrow[0], narrow[1])


def test_no_figures_no_chart(tmp_path: Path) -> None:
    assert not save_chart(tmp_path)
    write_stats(tmp_path, [{"Progress/kimg": 1.0}])
    assert not save_chart(tmp_path)
    assert not (tmp_path / "chart.png").exists()


@pytest.fixture
def session(drawings: Path) -> Callable[..., Session]:
    def make(**kd: object) -> Session:
        given = {"data": str(drawings), "cfg": "demo", "cbase": 64, "cmax": 16, "batch": 4, "device": "cpu"}
        return Session.build(resolve(given, kd, 32), ImageDataset(drawings))

    return make


def test_views_show_the_images_themselves(session: Callable[..., Session], drawings: Path, tmp_path: Path) -> None:
    save_views(session(), tmp_path / "plain.png", count=3)
    save_views(session(teacher="demo"), tmp_path / "taught.png", count=3)
    plain, taught = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "taught.png"))
    assert plain.shape[0] == taught.shape[0]
    assert plain.shape[1] < taught.shape[1]  # the teacher's column and its prompts
    first = ImageDataset(drawings)[0][0].transpose(1, 2, 0)
    large = first.repeat(4, axis=0).repeat(4, axis=1)  # 128 pixels
    for sheet in (plain, taught):
        np.testing.assert_array_equal(sheet[28 : 28 + 128, 8 : 8 + 128], large)
    assert (taught[:, -330:] < 128).any()  # text


def test_the_forecast(session: Callable[..., Session]) -> None:
    run = session()
    config = run.config
    assert (config.kimg, config.tick * config.snap) == (70, 10)
    run.nimg = 1000
    text = forecast(run, seconds_per_image=0.06)
    assert "60.0 sec/kimg; first images and snapshot at 10 kimg in about 9m 00s" in text
    assert text.endswith("the end at 70 kimg in about 1h 09m 00s")
    run.nimg = 65_000
    assert "snapshot at 70 kimg in about 5m 00s" in forecast(run, seconds_per_image=0.06)


def test_the_last_lines_say_what_to_do_next(run_train: RunTrain, tmp_path: Path) -> None:
    output = run_train().output
    assert "Finished at 0.0 kimg. Look at" in output
    assert "network-snapshot-000000.016.safetensors --seeds=0-31 --trunc=0.7" in output
    assert "--kd=clip --data=FOLDER" not in output  # not the demo's drawings
    assert "--kd=clip --data=FOLDER" in run_train("--data=demo:20", *SMALL).output


def test_log_and_chart_show_a_terms_parts(
    run_train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[Panel] = []
    panels_of = chart.term_panels

    def watched(terms: Sequence[TermInfo]) -> list[Panel]:
        panels[:] = panels_of(terms)
        return panels_of(terms)

    monkeypatch.setattr(chart, "term_panels", watched)
    monkeypatch.setattr("training.loop.save_chart", save_chart)
    result = run_train("--kd=demo", "--kd-match-on=block1,embedding", "--kd-critic=0")
    assert result.exit_code == 0, result.output
    assert "match: its parts are embedding, block1" in result.output
    assert re.search(r"match -?[0-9.]+ \(-?[0-9.]+ -?[0-9.]+\)  grad_ratio_G", result.output)
    assert panels[1].lines == {
        "match": "Loss/KD/match", "match embedding": "Loss/KD/match/embedding", "match block1": "Loss/KD/match/block1",
    }  # fmt: skip
    (run_dir,) = (tmp_path / "runs").iterdir()
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    parts = [last[name]["mean"] for name in list(panels[1].lines.values())[1:]]
    assert last["Loss/KD/match"]["mean"] == pytest.approx(sum(parts) / 2)
