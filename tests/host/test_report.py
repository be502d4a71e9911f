"""report.py: what the page says of runs, and that it works in a browser without any other file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from report import main
from training.report.page.record import RunRecord
from training.report.page.verdict import BAD, GOOD, NEUTRAL, verdicts

RunTrain = Callable[..., Result]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Quiet: nothing is asked of the network, which a test machine may not have.
BROWSER_FLAGS = [
    f"--{name}"
    for name in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync"),
        *("disable-component-update", "disable-quic", "hide-scrollbars", "window-size=1320,2400"),
    )
]


def report(*given: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in given])


@pytest.fixture
def two_runs(run_train: RunTrain, tmp_path: Path) -> list[Path]:
    """A baseline and one with a teacher, held-out images and prompts."""
    shared = ("--metrics=none", "--kimg=0.032", "--tick=0.008")
    for flags in (("--holdout=0",), ("--kd=demo", "--holdout=4", "--gamma=1.5")):
        result = run_train(*shared, *flags)
        assert result.exit_code == 0, result.output
    return sorted((tmp_path / "runs").iterdir())


def write_metric(run: Path, name: str, values: dict[float, float], **more: float) -> None:
    lines = [{"results": {name: value, **more}, "metric": name, "kimg": kimg} for kimg, value in values.items()]
    (run / f"metric-{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def stats_line(kimg: float, name: str, value: float) -> str:
    numbers = {"Progress/kimg": kimg, name: value}
    return json.dumps({name: {"num": 1, "mean": value, "std": 0} for name, value in numbers.items()}) + "\n"


def empty_run(folder: Path, **options: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"data": "gone.zip", "cfg": "demo", "gpus": 1, **options}))
    return folder


def test_a_page_on_two_runs(two_runs: list[Path], tmp_path: Path) -> None:
    write_metric(two_runs[1], "kid100_full", {0.016: 0.5, 0.032: 0.9}, kid100_full_stderr=0.01)
    page = tmp_path / "page.html"
    result = report(*two_runs, f"--out={page}", "--samples=20")
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "shows 2 runs" in result.output
    # Nothing of it lies elsewhere.
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "://" not in re.sub(r"data:[^\"']*", "", text)
    for expected in ("kid100_full 0.9 at 0.032 kimg, the best 0.5 at 0.016 kimg", "use the best snapshot"):
        assert expected in text
    assert 2 * 16 < text.count('alt="sample"') <= 2 * 2 * 16  # unselected, and one for each training image
    assert len(re.findall(r"<tr><th>(gamma|holdout|kd\.teacher)</th>", text)) == 3  # and no option that is equal
    assert "<tr><th>kimg</th>" not in text
    assert text.count('class="bar fake"') == len(RunRecord.read(two_runs[1]).prompts) > 0
    # Both by the one teacher: distances of one run compare with the other's.
    assert text.count("compared by embeddings of demo") == 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_the_slider_in_a_browser(two_runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert report(*two_runs, f"--out={page}", "--samples=0").exit_code == 0
    # The test moves the slider and writes down which grid is seen, and every error.
    page.write_text(
        page.read_text().replace("<head>", "<head><script>window.onerror = m => document.title = 'ERROR ' + m</script>")
        + """<script>
        const seen = () => [...document.querySelectorAll("[data-grids]")].map(run =>
            [...run.querySelectorAll("img")].filter(grid => grid.offsetHeight > 0).map(grid => grid.dataset.kimg));
        const broken = () => [...document.images].filter(image => image.complete && image.naturalWidth === 0).length;
        addEventListener("load", () => {
          const slider = document.getElementById("time"), last = seen();
          slider.value = 0;
          slider.dispatchEvent(new Event("input"));
          document.body.dataset.seen = JSON.stringify({last, first: seen(), broken: broken()});
        });
        </script>"""
    )
    command = [str(BROWSER), *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>ERROR" not in document
    found = re.search(r'data-seen="([^"]*)"', document)
    assert found is not None
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen == {"last": [["0.032"], ["0.032"]], "first": [["0.0"], ["0.0"]], "broken": 0}


def test_a_run_of_an_official_checkout(tmp_path: Path) -> None:
    """Its own names: training_options.json, and metrics whose snapshot says when."""
    run = tmp_path / "00003-cats-auto1"
    run.mkdir()
    options = {
        "D_opt_kwargs": {"lr": 0.002},
        "training_set_kwargs": {"path": "cats.zip"},
        "loss_kwargs": {"kd": {"config": {"teacher": "clip"}, "prompts": ["a cat"]}},
    }
    (run / "training_options.json").write_text(json.dumps(options))
    (run / "stats.jsonl").write_text(
        stats_line(0, "Loss/scores/real", 0.1) + stats_line(4, "Loss/scores/real", 0.5) + '{"Lo'
    )
    line = {"results": {"fid50k_full": 12.5}, "metric": "fid50k_full", "snapshot_pkl": "network-snapshot-000004.pkl"}
    (run / "metric-fid50k_full.jsonl").write_text(json.dumps(line) + "\n")
    Image.new("RGB", (64, 32)).save(run / "fakes000004.png")
    Image.new("RGB", (64, 32)).save(run / "fakes_init.png")
    record = RunRecord.read(run)
    assert (record.kimg, list(record.grids)) == (4, [0, 4])
    assert record.options["D_opt_kwargs.lr"] == 0.002
    assert (record.images, record.teacher, record.prompts) == ("cats.zip", "clip", ("a cat",))
    assert record.metrics["fid50k_full"].values == {"fid50k_full": {4: 12.5}}
    result = report(run)
    assert result.exit_code == 0, result.output
    text = (run / "report.html").read_text()
    assert "Not shown: of an official checkout" in text
    assert "D&#39;s scores (logits)" in text


def test_a_run_that_has_only_begun_and_whose_images_are_gone(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "00000-x", desc="<script>alert(1)</script>")
    assert report(run).exit_code == 0
    text = (run / "report.html").read_text()
    assert "Nothing was measured yet." in text
    assert "it has no snapshot yet" in text
    assert "<script>alert" not in text  # texts of a run are texts
    (run / "network-snapshot-000001.safetensors").write_bytes(b"")
    assert report(run).exit_code == 0
    text = (run / "report.html").read_text()
    assert "gone.zip" in text.partition('id="nearest"')[2].partition('id="prompts"')[0]
    assert "give --data" in text


def test_what_is_said_of_overfitting(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "run")
    gaps = {1: 0.1, 2: 0.55, 3: 0.8}
    (run / "stats.jsonl").write_text("".join(stats_line(kimg, "Overfit/gap", gap) for kimg, gap in gaps.items()))
    write_metric(run, "fid1k_full", {1: 20.0, 3: 21.0})
    write_metric(run, "pr1k3_full", {1: 0.9, 3: 0.4})
    write_metric(run, "mem100", {1: 0.5, 3: 0.75})
    gap, fid, mem, pr = verdicts(RunRecord.read(run))
    assert (gap.kind, fid.kind, mem.kind, pr.kind) == (BAD, GOOD, BAD, BAD)
    assert "0.80 at 3 kimg" in gap.text
    assert "first above 0.5 at 2 kimg" in gap.text
    assert "the best 0.9 at 1 kimg" in pr.text
    (run / "stats.jsonl").write_text(stats_line(1, "Loss/scores/real", 0.0))
    assert verdicts(RunRecord.read(run))[0].kind == NEUTRAL


def test_a_metric_that_is_worse_by_less_than_its_error(tmp_path: Path) -> None:
    for error, kind in ((0.2, GOOD), (0.01, BAD)):
        run = empty_run(tmp_path / f"run{error}")
        write_metric(run, "kid1k_full", {1: 0.5, 2: 0.7}, kid1k_full_stderr=error)
        assert [verdict.kind for verdict in verdicts(RunRecord.read(run))] == [kind]


def test_copies_are_found(two_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that gives back two training images."""
    import torch

    from training.report.page import findings

    run = RunRecord.read(two_runs[1])
    _, dataset = findings.configure({}, str(run.folder / "config.json"))
    copies = torch.from_numpy(dataset.gather(np.array([2, 7] * 10))[0])
    monkeypatch.setattr(findings, "_samples", lambda run, dataset, where: copies)
    judge = findings.Judge.of([run], findings.Where())
    found = judge.examine(run)
    assert (found.near, found.used, found.count) == (1.0, 2, dataset.used)
    assert [pair.name for pair in found.closest] == [dataset.file_name(2), dataset.file_name(7)]
    np.testing.assert_array_equal(found.unselected[1].training, copies[1].numpy())


MISTAKES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "missing": (lambda at: [str(at / "none")], "is not the folder of a run: it does not exist"),
    "a file": (lambda at: [str(at / "runs/00000-x/config.json")], "it is a file"),
    "the folder above": (lambda at: [str(at / "runs")], "it holds 1; give one or several of them, such as"),
    "an empty folder": (lambda at: [str(at)], "it holds neither config.json nor training_options.json"),
    "another name": (lambda at: [str(at / "runs/00000-x"), "--out=page.png"], "--out: 'page.png' was given"),
    "no run": (lambda at: [], "Missing argument 'RUN...'"),
    "samples": (lambda at: [str(at / "runs/00000-x"), "--samples=-1"], "--samples: -1 was given"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str, tmp_path: Path) -> None:
    empty_run(tmp_path / "runs/00000-x")
    given, expected = MISTAKES[mistake]
    result = report(*given(tmp_path))
    assert result.exit_code == 2
    assert expected in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("*.html"))
