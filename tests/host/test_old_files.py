"""Files of version 0.1 (tests/data/v0.1) must still load: state, snapshot and config.json of a run of four steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import kd_plugin
from kd_plugin import load_teacher
from train import main
from training.checkpoint import load_snapshot, load_state
from training.networks.stylegan2 import Discriminator

OLD = Path(__file__).parents[1] / "data" / "v0.1"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    run_dir = tmp_path / "00000-demo-demo-kd-demo"
    run_dir.mkdir()
    for name in ("training-state.pt", "config.json"):
        shutil.copy(OLD / name, run_dir)
    return run_dir


def test_an_old_run_continues(old_run: Path) -> None:
    flags = ["--config", str(old_run / "config.json"), f"--outdir={old_run.parent}", "--kimg=0.02", "--resume=latest"]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 0, done.output
    assert f"Run folder:  {old_run}" in done.output
    before, after = torch.load(OLD / "training-state.pt", weights_only=True), load_state(old_run)
    assert (before["nimg"], after["parts"]["progress"]["nimg"]) == (16, 20)
    assert after["config"]["kd"]["match_on"] == "embedding"  # all that version 0.1 could match
    kd, old = after["parts"]["kd"]["_extra_state"], before["kd"]["_extra_state"]
    assert (old["steps"], kd["steps"], kd["images"]) == (4, 5, 20)
    assert kd["balances"].keys() == {"D", "match"}
    for name, kept in zip(("D", "match"), old["balances"], strict=True):
        ratio = kd["balances"][name]["ratio"]
        assert 0.5 < ratio / kept["ratio"] < 2  # one more measurement, of weight 0.1
        assert ratio != kept["ratio"]
    assert float(after["parts"]["kd"]["normalization.moments.count"]) == float(before["kd"]["space.moments.count"]) + 8


def test_an_old_snapshot_starts_a_run(tmp_path: Path) -> None:
    snapshot = OLD / "network-snapshot-000000.safetensors"
    assert load_snapshot(snapshot).G_ema(torch.zeros(1, 4), torch.zeros(1, 0)).shape == (1, 3, 32, 32)
    flags = ["--config", str(OLD / "config.json"), f"--outdir={tmp_path}", "--kimg=0.004", f"--resume={snapshot}"]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 0, done.output


def test_an_old_state_of_two_teachers_loads() -> None:
    state = torch.load(OLD / "kd-two-teachers.pt", weights_only=True)
    D = Discriminator(c_dim=0, img_resolution=32, img_channels=3, channel_base=64, channel_max=4)
    teachers = [(1.0, load_teacher("demo")), (0.5, load_teacher("demo"))]
    kd = kd_plugin.attach(D, teacher=teachers, prompts=["a cat", "an owl"], critic=0, match_memory=0)
    kd.load_state_dict(state)
    new = kd.state_dict()
    for place in (0, 1):
        for old_name, name in (("head.weight", "head.weight"), ("space.into", "normalization.into")):
            assert torch.equal(state[f"members.{place}.{old_name}"], new[f"members.{place}.{name}"])
        assert new[f"members.{place}._extra_state"]["steps"] == 4
