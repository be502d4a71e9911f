"""A run small enough for tests: real code, few channels, 64 images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from training.drawings import DemoSpec, write_demo_set

SMALL = ["--batch=4", "--cbase=256", "--cmax=64", "--map-depth=2", "--kimg=0.016", "--tick=0.008", "--snap=1"]


@pytest.fixture(autouse=True)
def _few_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts and grids take longer than such a run trains; tests marked `full_pictures` have them as users do."""
    if request.node.get_closest_marker("full_pictures") is None:
        monkeypatch.setattr("training.loop.save_chart", lambda run_dir, terms: False)
        monkeypatch.setattr("training.loop.grid_shape", lambda resolution: (1, 4))


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 captioned drawings of 32 x 32 in a zip."""
    path = tmp_path_factory.mktemp("data") / "drawings.zip"
    write_demo_set(path, DemoSpec(count=24, series=5))
    return path


@pytest.fixture
def run_train(drawings: Path, tmp_path: Path) -> Callable[..., Result]:
    """Runs train.py in this process on the drawings, with small networks; results go to tmp_path/runs."""
    from train import main

    torch.set_num_threads(1)

    def call(*flags: str) -> Result:
        given = [f"--data={drawings}", f"--outdir={tmp_path / 'runs'}", "--cfg=demo", *SMALL, *flags]
        return CliRunner().invoke(main, given)

    return call


def stats_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
