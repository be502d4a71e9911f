"""A run is found again by what its files contain, not by how their paths were typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from evaluate import chosen_by_run
from training.checkpoint import load_state
from training.data.image_sets import ImageOptions, open_training_set
from training.drawings import DemoSpec, write_demo_set

RunTrain = Callable[..., Result]


def the_run(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.fixture
def files(drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, prompts and a teacher's module, which is the current one."""
    folder = tmp_path / "job1"
    folder.mkdir()
    shutil.copy(drawings, folder / "d.zip")
    (folder / "prompts.txt").write_text("a photo of a cat\na photo of a fish\n")
    monkeypatch.chdir(folder)
    return folder


def test_other_paths_to_the_same_files(run_train: RunTrain, files: Path, tmp_path: Path) -> None:
    flags = ("--kd=demo", "--holdout=4")
    assert run_train(*flags, "--data=d.zip", "--kd-prompts=prompts.txt").exit_code == 0
    shutil.copytree(files, tmp_path / "job2")
    (tmp_path / "job2" / "d.zip").rename(tmp_path / "job2" / "renamed.zip")
    moved = [f"--data={tmp_path}/job2/renamed.zip", f"--kd-prompts={tmp_path}/job2/prompts.txt"]
    typed = ["--data=./d.zip", f"--kd-prompts={files}/prompts.txt"]
    for kimg, paths in (("0.02", typed), ("0.024", moved)):
        result = run_train(*flags, *paths, f"--kimg={kimg}", "--resume=latest")
        assert result.exit_code == 0, result.output
        assert "Resume:      at" in result.output
        assert load_state(the_run(tmp_path))["parts"]["progress"]["nimg"] == float(kimg) * 1000
    result = run_train(*flags, *typed, f"--resume={the_run(tmp_path)}", "--kimg=0.028")
    assert result.exit_code == 0, result.output
    data = moved[0].removeprefix("--data=")
    snapshot = the_run(tmp_path) / "network-snapshot-000000.016.safetensors"
    assert chosen_by_run(snapshot, data, open_training_set(ImageOptions(data)))["holdout"] == 4


def test_the_same_path_to_other_content(run_train: RunTrain, files: Path, tmp_path: Path) -> None:
    flags = ("--data=d.zip", "--kd=demo", "--kd-prompts=prompts.txt", "--resume=latest")
    assert run_train(*flags).exit_code == 0
    before = json.loads((the_run(tmp_path) / "config.json").read_text())
    (files / "prompts.txt").write_text("a photo of a dog\na photo of a fish\n")
    refused = run_train(*flags)
    assert refused.exit_code == 2
    assert "different ones: --kd-prompts (prompts.txt holds something else now)" in refused.output
    write_demo_set(files / "d.zip", DemoSpec(count=24, series=6))
    refused = run_train(*flags)
    assert "--data (d.zip holds something else now), --kd-prompts" in refused.output
    refused = run_train("--data=d.zip", "--kd=demo", f"--resume={the_run(tmp_path)}")
    assert refused.exit_code == 2
    assert "was started with other options: --data (d.zip holds something else now)" in refused.output
    assert json.loads((the_run(tmp_path) / "config.json").read_text()) == before
    assert chosen_by_run(the_run(tmp_path) / "x.safetensors", "d.zip", open_training_set(ImageOptions("d.zip"))) == {}


def test_a_run_that_recorded_no_content(run_train: RunTrain, files: Path, tmp_path: Path) -> None:
    """As version 0.1 wrote it."""
    assert run_train("--data=d.zip").exit_code == 0
    path = the_run(tmp_path) / "config.json"
    saved = json.loads(path.read_text())
    del saved["content"]
    path.write_text(json.dumps(saved))
    assert run_train("--data=./d.zip", "--resume=latest").exit_code == 2
    assert run_train("--data=d.zip", "--resume=latest", "--kimg=0.02").exit_code == 0
    assert run_train("--data=./d.zip", "--resume=latest", "--kimg=0.024").exit_code == 0
