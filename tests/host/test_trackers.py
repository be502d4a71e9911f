"""TensorBoard and Weights & Biases, by stand-ins that record what they are given."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

RunTrain = Callable[..., Result]
Calls = list[tuple[str, Any]]


class Writer:
    calls: Calls
    room = 10**9  # calls

    def __init__(self, folder: str, purge_step: int | None) -> None:
        self.calls.append(("open", (Path(folder).name, purge_step)))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if len(self.calls) >= self.room:
            raise OSError("No space left on device")
        self.calls.append((name, (step, value)))

    def add_image(self, name: str, pixels: Any, step: int, dataformats: str) -> None:
        self.calls.append((name, (step, pixels.shape, dataformats)))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.calls.append(("close", None))


def provide(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> Calls:
    Writer.calls = []
    provide(monkeypatch, "tensorboard")
    provide(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    return Writer.calls


def test_tensorboard_gets_ticks_grids_and_metrics(run_train: RunTrain, tensorboard: Calls, tmp_path: Path) -> None:
    result = run_train("--kd=demo", "--metrics=kid8_full", "--detector=demo")
    assert result.exit_code == 0, result.output
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert tensorboard[0] == ("open", (run_dir.name, None))
    assert tensorboard[-1] == ("close", None)
    of = {name: [value for key, value in tensorboard if key == name] for name, _ in tensorboard}
    assert [step for step, _ in of["Loss/KD/agkd"]] == [8, 16]
    assert of["fakes"] == [(step, (32, 128, 3), "HWC") for step in (8, 16)]
    assert [step for step, _ in of["Metrics/kid8_full"]] == [8, 16]


def test_one_that_fails_is_left_out(run_train: RunTrain, tensorboard: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "room", 9)
    result = run_train()
    assert result.exit_code == 0, result.output
    assert len(tensorboard) == 9
    assert result.output.count("TensorBoard failed and is left out from now on: No space left on device") == 1
    assert "Finished at" in result.output


def test_a_continued_run_hides_what_it_repeats(run_train: RunTrain, tensorboard: Calls) -> None:
    assert run_train("--kimg=0.008").exit_code == 0
    assert run_train("--resume=latest").exit_code == 0
    assert [value[1] for name, value in tensorboard if name == "open"] == [None, 9]


def test_wandb(run_train: RunTrain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: Calls = []

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            seen.append(("log", (step, sorted(values))))

        def finish(self) -> None:
            seen.append(("finish", None))

    def init(**options: Any) -> Run:
        seen.append(("init", options))
        return Run()

    provide(monkeypatch, "wandb", init=init, Image=lambda path: Path(path).name)
    assert run_train("--wandb=cats").exit_code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    options = seen[0][1]
    assert (options["project"], options["name"]) == ("cats", run_dir.name)
    assert (options["id"], options["resume"]) == (f"runs-{run_dir.name}", "allow")
    assert options["config"]["gamma"] == 0.02
    assert [step for name, (step, _) in seen[1:-1]] == [8, 8, 16, 16]
    assert seen[2][1][1] == ["fakes"]
    assert seen[-1] == ("finish", None)

    def refused(**_options: Any) -> Run:
        raise RuntimeError("no API key")

    provide(monkeypatch, "wandb", init=refused)
    result = run_train("--wandb=cats")
    assert result.exit_code == 2
    assert "--wandb=cats cannot start: no API key" in result.output


def test_wandb_without_the_package(run_train: RunTrain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("training.report.trackers.find_spec", lambda name: None)
    result = run_train("--wandb=cats")
    assert result.exit_code == 2
    assert "--wandb=cats needs a package that is not installed: pip install wandb" in result.output
    assert not (tmp_path / "runs").exists()
