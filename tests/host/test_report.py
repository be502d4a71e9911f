"""report.py: what the page says of runs, and that it works in a browser without any other file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch.nn import functional

import train
from kd_plugin.teachers import load_teacher
from report import main
from tests.host.conftest import SMALL
from torch_utils.ranks import Job
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_training_set
from training.report.page.document import differences, names
from training.report.page.findings import Findings, Judge, Where
from training.report.page.record import RunRecord
from training.report.page.verdict import BAD, GOOD, NEUTRAL, verdicts

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


@pytest.fixture(scope="session")
def _trained(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("report") / "runs"
    shared = (f"--data={drawings}", f"--outdir={outdir}", "--cfg=demo", *SMALL, "--metrics=none", "--kimg=0.032")
    for flags in (("--holdout=0",), ("--kd=demo", "--holdout=4", "--gamma=1.5")):
        result = CliRunner().invoke(train.main, [*shared, *flags])
        assert result.exit_code == 0, result.output
    return outdir


@pytest.fixture
def two_runs(_trained: Path, tmp_path: Path) -> list[Path]:
    """A baseline and one with a teacher, held-out images and prompts; of its own for each test."""
    return sorted(Path(shutil.copytree(_trained, tmp_path / "runs")).iterdir())


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
    assert text.count('class="axis"') == len(RunRecord.read(two_runs[1]).prompts) > 0
    assert text.count("Compared by demo. It trained runs shown here") == 1


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
    gap, fid, mem, pr = verdicts(RunRecord.read(run), Findings())
    assert (gap.kind, fid.kind, mem.kind, pr.kind) == (BAD, GOOD, BAD, BAD)
    assert "0.80 at 3 kimg" in gap.text
    assert "first above 0.5 at 2 kimg" in gap.text
    assert "the best 0.9 at 1 kimg" in pr.text
    (run / "stats.jsonl").write_text(stats_line(1, "Loss/scores/real", 0.0))
    assert verdicts(RunRecord.read(run), Findings())[0].kind == NEUTRAL


def test_a_metric_that_is_worse_by_less_than_its_error(tmp_path: Path) -> None:
    for error, kind in ((0.2, GOOD), (0.01, BAD)):
        run = empty_run(tmp_path / f"run{error}")
        write_metric(run, "kid1k_full", {1: 0.5, 2: 0.7}, kid1k_full_stderr=error)
        assert [verdict.kind for verdict in verdicts(RunRecord.read(run), Findings())] == [kind]


def test_copies(tmp_path: Path) -> None:
    """By their share too: a few exact copies among samples that are otherwise far away."""
    for auc, share, kind in ((0.5, 0.05, GOOD), (0.56, 0.2, BAD), (0.7, 0.05, BAD), (0.02, 0.0, NEUTRAL)):
        run = empty_run(tmp_path / f"{auc}-{share}")
        lines = {"mem100_auc": auc, "mem100_share": share, "mem100_held_out": 40.0}
        (run / "metric-mem100.jsonl").write_text(json.dumps({"results": lines, "kimg": 1.0}) + "\n")
        (verdict,) = verdicts(RunRecord.read(run), Findings())
        assert verdict.kind == kind, verdict
        assert "calibrated on 40 unseen images" in verdict.text


@pytest.mark.parametrize(("metric", "values", "kind"), [
    ("fid10k_full", {1: 9.0}, NEUTRAL),  # one value says nothing
    ("div1k", {1: 1.4, 2: 1.0}, NEUTRAL),  # 1 is best
    ("eqt50k_int", {1: 10.0, 2: 20.0}, GOOD),  # of StyleGAN3, in dB
    ("eqt50k_int", {1: 20.0, 2: 10.0}, BAD),
    ("unheard1k", {1: 1.0, 2: 9.0}, NEUTRAL),
])  # fmt: skip
def test_the_direction_of_a_metric(metric: str, values: dict[float, float], kind: str, tmp_path: Path) -> None:
    run = empty_run(tmp_path / "run")
    write_metric(run, metric, values)
    assert [verdict.kind for verdict in verdicts(RunRecord.read(run), Findings())] == [kind]


def test_a_gap_without_a_value_and_a_small_one(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "run")
    for name, value, kind, words in (
        ("Overfit/train", 0.1, NEUTRAL, "D does not tell training images from generated ones"),
        ("Overfit/gap", 0.1, GOOD, "Overfitting gap 0.10"),
        ("Overfit/gap", 0.3, NEUTRAL, "Overfitting gap 0.30"),
    ):
        (run / "stats.jsonl").write_text(stats_line(1, name, value))
        (verdict,) = verdicts(RunRecord.read(run), Findings())
        assert verdict.kind == kind
        assert words in verdict.text


class Samples:
    """In place of a generator: given pixels [N, 3, R, R]."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels, self.device = pixels, torch.device("cpu")

    def jobs(self, count: int, batch: int) -> Iterator[Job]:
        for part in self.pixels[:count].split(batch):
            yield Job(len(part), lambda part=part: part)  # type: ignore[misc]


def drawn(count: int, series: int, mirror: bool = False) -> ImageDataset:
    return open_training_set(ImageOptions(f"demo:{count}@{series}", mirror=mirror))


def compared(samples: torch.Tensor, train: ImageDataset, held_out: ImageDataset | None = None) -> Findings:
    judge = Judge([], Where(len(samples), None, None, torch.device("cpu")))
    return judge.compare(Samples(samples), train, held_out)  # type: ignore[arg-type]


def pixels_of(dataset: ImageDataset, indices: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(dataset.gather(np.array(indices))[0])


def test_copies_are_found_and_shown() -> None:
    train = drawn(30, 3)
    found = compared(pixels_of(train, [2, 7] * 10), train)
    assert found.copies is not None
    assert (found.copies.share, found.used, found.count) == (1.0, 2, 30)
    assert [pair.name for pair in found.closest] == [train.file_name(2), train.file_name(7)]
    assert found.closest[0].distance == 0
    np.testing.assert_array_equal(found.unselected[1].training, pixels_of(train, [7])[0].numpy())
    np.testing.assert_array_equal(found.unselected[1].sample, found.unselected[1].training)


def test_mirrored_copies_are_copies() -> None:
    train = drawn(30, 3, mirror=True)
    found = compared(pixels_of(train, [32, 37] * 10), train)  # of 2 and 7, left to right
    assert found.copies is not None
    assert (found.copies.share, found.used, found.count) == (1.0, 2, 30)
    # An image's own mirror image does not calibrate what is near.
    assert float(found.copies.auc) == 1.0


@pytest.mark.parametrize("held_out", [None, (60, 5)])
def test_unseen_images_are_no_copies(held_out: tuple[int, int] | None) -> None:
    """Other drawings of the same distribution: an even chance, and about 5 % that are very near."""
    train, other = drawn(200, 3), drawn(200, 4)
    found = compared(pixels_of(other, range(200)), train, None if held_out is None else drawn(*held_out))
    assert found.copies is not None
    assert abs(found.copies.auc - 0.5) < 0.1
    assert found.copies.share < 0.12
    assert (
        "200 training images and the others" if held_out is None else "60 images that were held out"
    ) in found.unseen
    assert 0.8 < np.median([pair.distance for pair in found.unselected]) < 1.25


def test_few_images_are_shown_and_not_judged() -> None:
    train = drawn(8, 3)
    found = compared(pixels_of(train, [0, 1, 2]), train)
    assert found.copies is None
    assert len(found.unselected) == 3


def test_the_prompts(two_runs: list[Path]) -> None:
    """Means over training images and samples by the run's own teacher, computed here again."""
    run = RunRecord.read(two_runs[1])
    train, other = open_training_set(ImageOptions(run.options["data"], holdout=4)), drawn(40, 9)
    samples = pixels_of(other, range(40))
    judge = Judge([run], Where(40, None, None, torch.device("cpu")))
    scores = judge.compare(Samples(samples), train, None, judge.detector, run.prompts).scores  # type: ignore[arg-type]
    assert scores is not None
    teacher = load_teacher("demo")
    texts = functional.normalize(teacher.embed_texts(run.prompts), dim=1)
    for name, images in (("real", pixels_of(train, range(train.used))), ("fake", samples)):
        cosines = functional.normalize(teacher.embed_images(images / 127.5 - 1), dim=1) @ texts.T
        expected = dict(zip(run.prompts, cosines.mean(0).tolist(), strict=True))
        for row in scores.rows:
            assert getattr(row, name) == pytest.approx(expected[row.text], abs=2e-3)
    assert [row.real for row in scores.rows] == sorted((row.real for row in scores.rows), reverse=True)


def test_other_images_than_the_run_had(two_runs: list[Path], drawings: Path, tmp_path: Path) -> None:
    """Moved images are found by --data; others are refused, and a code teacher is not run."""
    moved = tmp_path / "elsewhere.zip"
    shutil.copy(drawings, moved)
    config = two_runs[0] / "config.json"
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"data": "gone.zip"}))
    run, problems = RunRecord.read(two_runs[0]), []
    for data in (str(moved), "demo:24@8"):
        problems.append(Judge([run], Where(4, data, None, torch.device("cpu"))).examine(run).problem)
    assert problems[0] == ""
    assert "holds other images than the run was trained on" in problems[1]


def test_nobodys_code_is_run_for_a_page(two_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('run')\n")
    monkeypatch.chdir(tmp_path)
    config = two_runs[1] / "config.json"
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"kd": saved["kd"] | {"teacher": "evil:make"}}))
    assert report(two_runs[1], "--samples=4").exit_code == 0
    assert "Compared by pixels at 32x32" in (two_runs[1] / "report.html").read_text()


def test_what_differs_from_the_usual(two_runs: list[Path]) -> None:
    rows = dict(differences([RunRecord.read(two_runs[1])]))
    assert rows["gamma"] == ["0.02", "1.5"]
    assert rows["holdout"] == ["0", "4"]
    assert not {"precision", "kd.precision", "kd.teacher", "cfg", "data"} & rows.keys()


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    runs = [RunRecord.read(empty_run(tmp_path / name / "runs" / "00000-x")) for name in ("a", "b")]
    assert names(runs) == ["a/runs/00000-x", "b/runs/00000-x"]
    assert names(runs[:1]) == ["00000-x"]
    result = report(runs[0].folder, f"{runs[0].folder}/")
    assert "shows one run" in result.output


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
