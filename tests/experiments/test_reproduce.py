"""reproduce.py: a whole table at the smallest scale, its report, and what a user may get wrong."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dnnlib.errors import UserError
from experiments.report import to_markdown
from experiments.results import Protocol, figures_of, summarize
from experiments.runs import Place, Run, runs_of, start
from experiments.slurm import Job, parameters_of, submit
from experiments.table import Published, Table, load_table
from reproduce import main
from tests.host.test_report import BROWSER, BROWSER_FLAGS

TABLE = """
title = "Two by two"
about = "On drawings."
protocol = "KID, 24 fakes"
metric = "kid24_full"
resolution = 32
seeds = 1
[flags]
cfg = "demo"
kimg = 0.032
tick = 0.016
snap = 1
batch = 4
cbase = 128
cmax = 8
mbstd_group = 2
holdout = 0
metrics = "kid24_full"
detector = "{detector}"
[[axis]]
name = "method"
choice = [{ name = "plain", flags = { kd = "none" } }, { name = "taught", flags = { kd = "{teacher}" } }]
[[axis]]
name = "data"
choice = [{ name = "A", flags = { data = "demo:24@1" } }, { name = "B", flags = { data = "demo:24@2" } }]
[[published]]
row = ["plain"]
values = { A = 1.5 }
source = "a page"
[[published]]
row = ["taught"]
values = { A = 0.5 }
source = "another page"
protocol = "other images"
[[elsewhere]]
name = "BestGAN"
values = { B = 0.25 }
source = "its README"
"""


def reproduce(*given: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in given])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "two.toml"
    path.write_text(TABLE)
    return path


@pytest.fixture(scope="module")
def done(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of the table's runs, and what the command said. One run fails, the others are not stopped by it."""
    out = tmp_path_factory.mktemp("out")
    spoilt = table.parent / "spoilt.toml"
    spoilt.write_text(TABLE.replace("demo:24@2", "nowhere.zip"))
    result = reproduce(spoilt, f"--out={out}", "--teacher=demo", "--detector=demo", "--samples=8", "--jobs=2")
    return out, result


def test_a_failed_run_is_shown_and_stops_no_other(done: tuple[Path, Result]) -> None:
    _, result = done
    assert result.exit_code == 1, result.output
    assert result.output.count("\nfinished  ") == 2
    assert result.output.count("\nFAILED    ") == 2
    assert "FAILED    plain / B, seed 0, exit status 2:\n" in result.output
    assert "    Error: --data: 'nowhere.zip' is neither an existing zip or folder nor a known set" in result.output
    assert "2 of 4 runs failed: " in result.stderr


def test_figures_are_collected_and_reported(done: tuple[Path, Result]) -> None:
    out, _ = done
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["data"], row["metric"]) for row in rows] == [
        ("plain", "A", "kid24_full"),
        ("taught", "A", "kid24_full"),
    ]
    text = (out / "report.md").read_text()
    plain = float(rows[0]["last"])
    assert f"{plain:.4g} (n=1)" in text
    assert f"(1.5 [1]; {plain - 1.5:+.3g})" in text  # the same protocol: compared
    assert "(0.5 [2])" in text  # another one: not compared
    assert "[2] another page; protocol: other images; not compared" in text
    assert "| BestGAN |  | 0.25 | its README |" in text
    assert "- kid24_full: 24 fakes against 5000 images of demo-drawings" in text
    assert "2 of 4 runs are not finished: plain / B, seed 0; taught / B, seed 0" in text
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing of it lies elsewhere
    assert page.count('alt="sample"') == page.count('alt="nearest training image"') == 2 * 8
    assert "python train.py --cfg=demo" in page


def test_finished_runs_are_not_repeated(done: tuple[Path, Result], table: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*_A_s0/output.txt")}
    assert len(before) == 2
    (out / "table.json").write_text(json.dumps({"table": "two", "scale": "full"}))
    # The table was mended in the meantime; the finished runs were made with the folders' old names.
    for path in out.glob("runs/*/done.json"):
        path.write_text(path.read_text().replace(str(done[0]), str(out)))
    result = reproduce("run", table, f"--out={out}", "--teacher=demo", "--detector=demo", "--only=A")
    assert result.exit_code == 0, result.output
    assert "2 of 2 runs are finished" in result.output
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stopped_run_continues(table: Path, tmp_path: Path) -> None:
    flags = (f"--out={tmp_path}", "--teacher=demo", "--detector=demo", "--only=plain,A")
    assert reproduce("run", table, *flags).exit_code == 0
    longer = table.parent / "longer" / "two.toml"
    longer.parent.mkdir()
    longer.write_text(TABLE.replace("kimg = 0.032", "kimg = 0.048"))
    assert reproduce("run", longer, *flags).exit_code == 0
    (log,) = tmp_path.glob("runs/*/output.txt")
    assert "Resume:      at 0.0 kimg" in log.read_text()
    (run_dir,) = tmp_path.glob("runs/*/0*")
    assert (run_dir / "network-snapshot-000000.048.safetensors").is_file()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_the_page_in_a_browser(done: tuple[Path, Result], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        (done[0] / "report.html").read_text()
        + """<script>
        const broken = () => [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length;
        addEventListener("load", () => {
          const cells = [...document.querySelectorAll("#table ~ .scroll td .best")].map(cell => cell.textContent);
          const wide = document.documentElement.scrollWidth > innerWidth;
          document.title = JSON.stringify({images: document.images.length, broken: broken(), best: cells.length, wide});
        });
        </script>"""
    )
    command = [BROWSER, *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    seen = json.loads(title[1])
    assert seen == {"images": 1 + 2 + 2 * 8 * 2, "broken": 0, "best": 1, "wide": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["low_shoot"], "TABLE: 'low_shoot' is unknown; nearest: 'low_shot'"),
        (["rum", "low_shot"], "'rum' is unknown; nearest: 'run'"),
        (["run"], "run takes one TABLE: ablation, cifar"),
        (["plan", "low_shot", "--only=Obamo"], "--only: 'Obamo' is no row or column of low_shot; nearest: 'Obama'"),
        (["run", "low_shot", "--data=nowhere"], "--data: 'nowhere' is not a folder"),
        (["run", "cifar"], "--data: data sets are missing; make them in one folder and give it as --data. cifar10.zip"),
        (["run", "teachers", "--slurm=gpu"], "--slurm: 'gpu' was given, expected NAME=VALUE"),
        (["run", "teachers", "--slurm=partition=gpu"], "--slurm: there is no Slurm on this machine"),
        (["run", "teachers", "--seeds=0"], "--seeds: 0 was given"),
        (["report", "teachers"], "does not exist; python reproduce.py run teachers makes it"),
        (["run", "teachers", "--scale=tiny"], "--scale"),
    ],
)
def test_mistakes_are_one_line(given: list[str], message: str, tmp_path: Path) -> None:
    result = reproduce(*given, f"--out={tmp_path / 'out'}")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert len(result.stderr.splitlines()) <= 4  # click adds its usage to some
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_table(done: tuple[Path, Result], table: Path) -> None:
    result = reproduce("run", "low_shot", "--scale=smoke", f"--out={done[0]}")
    assert result.exit_code == 2
    assert "holds the runs of spoilt at scale full, this is low_shot at scale smoke; give another" in result.output


def test_the_list() -> None:
    lines = reproduce("list").output.splitlines()
    assert next(line for line in lines if line.startswith("low_shot ")).split()[1:5] == ["60", "cells,", "3", "seeds"]


def measured(run: Run, values: list[float], **protocol: Any) -> None:
    """A run that ended, with a metric."""
    folder = run.folder / "00000-x"
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "metric": "kid1k_full", "detector": "d", "detector_sha256": "0", "num_real": 9, "num_fake": 1000,
        "dataset": "all", "resize": "none", "mirror": False, **protocol,
    }  # fmt: skip
    lines = [{**shared, "kimg": kimg, "results": {"kid1k_full": value}} for kimg, value in enumerate(values, 1)]
    (folder / "metric-kid1k_full.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "done.json").write_text(json.dumps({"command": " ".join(run.command)}))


@pytest.fixture
def small(tmp_path: Path) -> tuple[Table, list[Run]]:
    table = load_table("photos_small")
    place = Place(tmp_path, None, "demo", "demo")
    return table, runs_of(table, place, 2, ["DA", "none", "default", "cats"])


def test_means_and_spreads_over_seeds(small: tuple[Table, list[Run]], monkeypatch: pytest.MonkeyPatch) -> None:
    table, runs = small
    monkeypatch.setattr(Run, "finished", property(lambda run: (run.folder / "done.json").is_file()))
    for run, values in zip(runs, ([3.0, 1.0], [4.0, 2.0], [3.0, 2.0]), strict=False):
        measured(run, values)
    summaries = summarize(table, runs, "kid1k_full", best=False)
    baseline, default = summaries["DA", "none", "cats"], summaries["DA", "default", "cats"]
    assert (baseline.mean, baseline.spread) == (1.5, pytest.approx(0.5**0.5))
    assert (default.mean, default.spread) == (2.0, None)
    assert figures_of(runs[0])["kid1k_full"].best_kimg == 2
    text = to_markdown(table, runs)
    assert "| DA | none |  | **1.5 ± 0.71 (n=2)**, best 1.5 |" in text
    assert "| DA | default |  | 2 (n=1), best 2 |" in text


def test_figures_of_different_protocols_are_not_compared(
    small: tuple[Table, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, runs = small
    monkeypatch.setattr(Run, "finished", property(lambda run: (run.folder / "done.json").is_file()))
    measured(runs[0], [1.0])
    measured(runs[1], [1.0], mirror=True)
    with pytest.raises(UserError, match=r"^runs of cats were measured in different ways, and cannot be compared: .*"):
        summarize(table, runs, "kid1k_full", best=False)


def test_a_protocol_in_words() -> None:
    protocol = Protocol("fid5k_full", "inception", "ab" * 32, 100, 5000, "cats", "none", False)
    assert str(protocol) == (
        "fid5k_full: 5000 fakes against 100 images of cats, not mirrored, not resized, by inception (SHA-256 "
        "abababababab...)"
    )
    assert Published(("a",), {"b": 1.0}, "s").protocol == ""


def test_slurm_parameters() -> None:
    given = parameters_of("partition=gpu,timeout_min=60,mem_gb=32")
    expected = {"slurm_partition": "gpu", "timeout_min": 60, "mem_gb": 32, "gpus_per_node": 1, "cpus_per_task": 4}
    assert given == expected


def test_jobs_run_through_submitit(table: Path, tmp_path: Path) -> None:
    """On submitit's local executor, as on Slurm: pickled, started in another process."""
    pytest.importorskip("submitit")
    loaded = load_table(str(table))
    runs = runs_of(loaded, Place(tmp_path, None, "demo", "demo"), 1, ["plain", "A"])
    parameters = {key: value for key, value in parameters_of("").items() if key in ("timeout_min",)}
    (job,) = submit(runs, tmp_path / "slurm", parameters, 1, cluster="local")
    outcome = job.result()
    assert outcome.status == 0, outcome.tail
    assert runs[0].finished


def test_a_preempted_job_saves_and_asks_to_be_requeued(table: Path, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    long = tmp_path / "long.toml"
    long.write_text(TABLE.replace("kimg = 0.032", "kimg = 100").replace("tick = 0.016", "tick = 0.004"))
    (run,) = runs_of(load_table(str(long)), Place(tmp_path, None, "demo", "demo"), 1, ["plain", "A"])
    job = Job(run)
    job.process = start(run, dict(os.environ))
    for _ in range(600):
        if run.run_dir is not None and (run.run_dir / "training-state.pt").is_file():
            break
        assert job.process.poll() is None, (run.folder / "output.txt").read_text()
        time.sleep(0.1)
    again = job.checkpoint()
    assert job.process.poll() == 128 + 15  # stopped by SIGTERM, after saving
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert pickle.loads(pickle.dumps(again.function)).run == run
    assert not run.finished
    assert run.state == "started"
