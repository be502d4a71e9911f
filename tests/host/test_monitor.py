"""Metrics while training: their lines, the best snapshot, and a training that does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from training.checkpoint import load_snapshot, load_state
from training.monitors import metrics as monitor
from training.monitors.metrics import BEST_SNAPSHOT

RunTrain = Callable[..., Result]
METRICS = ("--detector=demo", "--metrics=kid16_full,mem16")


def run_dir_of(tmp_path: Path, name: str = "runs") -> Path:
    (folder,) = (tmp_path / name).iterdir()
    return folder


def lines_of(run_dir: Path, metric: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / f"metric-{metric}.jsonl").read_text().splitlines()]


def test_a_line_at_every_snapshot(run_train: RunTrain, tmp_path: Path) -> None:
    result = run_train(*METRICS, "--kimg=0.016", "--holdout=8")
    assert result.exit_code == 0, result.output
    run_dir = run_dir_of(tmp_path)
    lines = lines_of(run_dir, "kid16_full")
    assert [line["kimg"] for line in lines] == [0.008, 0.016]
    assert set(lines[0]["results"]) == {"kid16_full", "kid16_full_stderr"}
    assert lines[0]["results"] != lines[1]["results"]
    assert lines[0]["snapshot_pkl"] == "network-snapshot-000000.008.safetensors"
    assert (lines[0]["detector"], lines[0]["num_real"], lines[0]["num_fake"]) == ("demo", 24, 16)
    # The eight images that were held out calibrate the figure about copies.
    assert lines_of(run_dir, "mem16")[0]["results"]["mem16_held_out"] == 8
    log = (run_dir / "log.txt").read_text()
    assert "kid16_full, mem16 at every snapshot, by demo (SHA-256" in log
    assert log.count("Metrics:     kid16_full ") == 2


@pytest.mark.parametrize(("metric", "best"), [("kid8_full", min), ("pr8_full", max)])
def test_the_best_snapshot_is_kept(
    metric: str, best: Callable[..., float], run_train: RunTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([3.0, 1.0, 5.0, 2.0])
    kept: list[int] = []

    def measured(*args: Any, **options: Any) -> list[Any]:
        from training.metrics import MetricResult

        run_dir = run_dir_of(tmp_path)
        if (run_dir / BEST_SNAPSHOT).is_file():
            kept.append(load_snapshot(run_dir / BEST_SNAPSHOT).meta["nimg"])
        return [MetricResult(metric, {metric: next(figures)}, "d", "0", 1, 1, "x", "0", "x", 32, "none", False, 0)]

    monkeypatch.setattr(monitor, "evaluate", measured)
    result = run_train("--detector=demo", f"--metrics={metric}", "--kimg=0.032")
    assert result.exit_code == 0, result.output
    kept.append(load_snapshot(run_dir_of(tmp_path) / BEST_SNAPSHOT).meta["nimg"])
    assert kept == ([8, 16, 16, 16] if best is min else [8, 8, 24, 24])


def test_measuring_changes_nothing(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train(f"--outdir={tmp_path / 'without'}").exit_code == 0
    assert run_train(*METRICS, f"--outdir={tmp_path / 'with'}").exit_code == 0
    without, with_ = (load_state(run_dir_of(tmp_path, name)) for name in ("without", "with"))
    for role in ("G", "D", "G_ema"):
        for name, value in without["parts"][role].items():
            assert torch.equal(value, with_["parts"][role][name])


def test_evaluate_py_gives_the_figure_of_the_training(run_train: RunTrain, tmp_path: Path, drawings: Path) -> None:
    """Of 50 fakes: more than one batch."""
    import evaluate

    assert run_train("--detector=demo", "--metrics=kid50_full", "--kimg=0.008").exit_code == 0
    snapshot = run_dir_of(tmp_path) / BEST_SNAPSHOT
    flags = [f"--network={snapshot}", f"--data={drawings}", "--detector=demo", "--metrics=kid50_full", "--device=cpu"]
    again = CliRunner().invoke(evaluate.main, flags)
    assert again.exit_code == 0, again.output
    (line,) = lines_of(run_dir_of(tmp_path), "kid50_full")
    assert json.loads(again.stdout)["results"] == pytest.approx(line["results"], rel=1e-5)


def test_metrics_may_change_when_a_run_goes_on(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train("--kimg=0.008").exit_code == 0
    result = run_train(*METRICS, "--kimg=0.016", "--resume=latest")
    assert result.exit_code == 0, result.output
    assert [line["kimg"] for line in lines_of(run_dir_of(tmp_path), "kid16_full")] == [0.016]


def test_lines_after_the_last_save_are_dropped(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train(*METRICS, "--kimg=0.008").exit_code == 0
    path = run_dir_of(tmp_path) / "metric-kid16_full.jsonl"
    later = {**json.loads(path.read_text()), "kimg": 0.012}
    path.write_text(path.read_text() + json.dumps(later) + "\n" + '{"kimg": 0.0')
    assert run_train(*METRICS, "--kimg=0.016", "--resume=latest").exit_code == 0
    assert [line["kimg"] for line in lines_of(run_dir_of(tmp_path), "kid16_full")] == [0.008, 0.016]


def test_a_save_that_was_not_measured_is_measured_later(run_train: RunTrain, tmp_path: Path) -> None:
    """As after a kill between the two, or between two metrics."""
    both = ("--detector=demo", "--metrics=kid16_full,fid16_full")
    assert run_train(*both).exit_code == 0
    path = run_dir_of(tmp_path) / "metric-fid16_full.jsonl"
    before = path.read_text()
    path.write_text(before.splitlines(keepends=True)[0])
    assert run_train(*both, "--kimg=0.02", "--resume=latest").exit_code == 0
    for name in ("kid16_full", "fid16_full"):
        assert [line["kimg"] for line in lines_of(run_dir_of(tmp_path), name)] == [0.008, 0.016, 0.02]
    again, first = (json.loads(text.splitlines()[1])["results"] for text in (path.read_text(), before))
    assert again == first


class FailsLater(nn.Module):
    """Fine on the two images of the trial, NaN on more."""

    def forward(self, pixels: Tensor, return_features: bool = True) -> Tensor:
        features = pixels.float().mean((2, 3))
        return features * float("nan") if len(pixels) > 2 else features


def test_a_detector_that_fails_later_does_not_end_the_training(run_train: RunTrain, tmp_path: Path) -> None:
    torch.jit.script(FailsLater()).save(str(tmp_path / "later.pt"))
    result = run_train(f"--detector={tmp_path / 'later.pt'}", "--metrics=kid8_full", "--kimg=0.016")
    assert result.exit_code == 0, result.output
    assert result.output.count("not measured: --detector: 'later' returned NaN or infinity for some images") == 2


def test_too_few_images_are_found_before_the_training(run_train: RunTrain, tmp_path: Path) -> None:
    result = run_train("--detector=demo", "--metrics=pr2_full")
    assert result.exit_code == 2
    assert "pr2_full needs at least 4 generated images, there are 2. To train without metrics give" in result.output
    assert not (tmp_path / "runs").exists()
