"""Several processes are one: equal weights on all, those of one process on the joint batch, one life and one death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from tests.forked import Forked, ranks
from tests.host import joint_step
from tests.host.test_launch import children_of, wait_for_the_end
from tests.host.test_signals import FLAGS, ROOT, start, wait_for_ticks
from training.checkpoint import load_snapshot, load_state


def joint_steps(folder: Path, drawings: Path, *flags: str, world: int = 2) -> list[Forked]:
    return ranks(joint_step.main, folder, drawings, *flags, world=world, folder=folder)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def test_two_processes_are_one_on_the_joint_batch(drawings: Path, tmp_path: Path) -> None:
    """R1, path length, KD with crossed pairs, ADA's sums and LeCam among it."""
    for process in joint_steps(tmp_path, drawings):
        assert process.returncode == 0, process.output
    first, second = (read(tmp_path / f"{rank}.pt") for rank in range(2))
    assert [name for name, value in first["weights"].items() if not torch.equal(value, second["weights"][name])] == []
    alone_dir = tmp_path / "alone"
    alone_dir.mkdir()
    (process,) = joint_steps(alone_dir, drawings, world=1)
    assert process.returncode == 0, process.output
    alone = read(alone_dir / "0.pt")
    for name, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-5, atol=2e-6, msg=name)
    heads = [name for name in alone["kd"] if name.startswith("terms.critic.heads")]
    assert heads
    for name in heads:
        assert torch.equal(first["kd"][name], second["kd"][name])
        torch.testing.assert_close(first["kd"][name], alone["kd"][name], rtol=1e-5, atol=2e-6, msg=name)
    for part in ("lecam", "path_length", "stats"):
        torch.testing.assert_close(first[part], alone[part], rtol=1e-5, atol=1e-6)
    assert first["ada"] == second["ada"] == alone["ada"]
    assert alone["ada"]["count"] == 8
    assert alone["nan_steps"] == first["nan_steps"] == 0


def test_nan_in_one_process_is_counted_in_all(drawings: Path, tmp_path: Path) -> None:
    for process in joint_steps(tmp_path, drawings, "--nan"):
        assert process.returncode == 0, process.output
    first, second = (read(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["nan_steps"] == second["nan_steps"] == 1


@pytest.mark.parametrize(("flag", "name"), [("--spoil", "D.b4.fc.weight"), ("--differ", "--gamma")])
def test_processes_that_disagree_name_the_first_difference(
    flag: str, name: str, drawings: Path, tmp_path: Path
) -> None:
    for process in joint_steps(tmp_path, drawings, flag):
        assert process.returncode != 0
        assert f"disagree on {name};" in process.output


def test_gpus_starts_processes_that_make_one_run(drawings: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    flags = ["--gpus=2", "--kd=demo", "--aug=ada", "--lecam=0.1", "--holdout=4", "--kimg=0.032"]
    process = start(drawings, runs, *flags)
    assert process.wait() == 0, process.output
    (run_dir,) = runs.iterdir()
    assert process.output.count("Finished at") == 1
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/kimg"]["mean"] for line in lines] == [0.016, 0.032]
    assert lines[0]["Loss/scores/real"]["num"] == 16  # of both
    assert json.loads((run_dir / "config.json").read_text())["gpus"] == 2


def test_a_mistake_is_one_line_also_in_several_processes(drawings: Path, tmp_path: Path) -> None:
    process = start(drawings, tmp_path / "runs", "--gpus=2", "--kd=demo", "--kd-layer=b4.fcc")
    assert process.wait() == 2, process.output
    (line,) = process.output.strip().splitlines()
    assert "--kd-layer=b4.fcc is not in the discriminator; nearest: 'b4.fc'" in line
    assert not (tmp_path / "runs").exists()


def test_torchrun_is_taken_as_it_is(drawings: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py", *FLAGS]
    command = [*torchrun, "--kimg=0.016", f"--data={drawings}", f"--outdir={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    (run_dir,) = tmp_path.iterdir()
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == 16
    assert json.loads((run_dir / "config.json").read_text())["gpus"] == 2


def test_processes_whose_launcher_was_killed_save_and_end(drawings: Path, tmp_path: Path) -> None:
    """Elsewhere than on Linux it is stopped: the kernel's death signal is Linux's."""
    process = start(drawings, tmp_path, "--gpus=2")
    run_dir = wait_for_ticks(tmp_path, 1, process)
    children = children_of(process.pid)
    assert len(children) == 2
    os.kill(process.pid, signal.SIGKILL if sys.platform.startswith("linux") else signal.SIGTERM)
    process.wait()
    wait_for_the_end(children)
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    nimg = load_state(run_dir)["parts"]["progress"]["nimg"]
    assert nimg == last["Progress/kimg"]["mean"] * 1000
    load_snapshot(run_dir / f"network-snapshot-{nimg // 1000:06d}.{nimg % 1000:03d}.safetensors")


def test_a_batch_that_cannot_be_shared(run_train: Callable[..., Result], tmp_path: Path) -> None:
    result = run_train("--gpus=3", "--batch=8")
    assert result.exit_code == 2
    assert (
        "--gpus=3: --batch=8 images cannot be shared evenly by 3 processes; give --gpus=2 or 4, or --batch=6 or 9"
        in result.output
    )
    assert not (tmp_path / "runs").exists()


JOB = {
    "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"WORLD_SIZE": "two"}, "the environment says WORLD_SIZE='two'; expected a whole number, at least 1; start "),
        ({"WORLD_SIZE": "0"}, "the environment says WORLD_SIZE='0'; expected"),
        ({"LOCAL_RANK": None, "MASTER_PORT": None}, "a job of 2 processes, but lacks LOCAL_RANK, MASTER_PORT; start "),
        ({"RANK": "-1"}, "the environment says RANK='-1'; expected"),
        ({"RANK": "2"}, "the environment says RANK=2, but WORLD_SIZE=2"),
    ],
)
def test_an_environment_that_is_no_job(
    changed: dict[str, str | None], message: str, run_train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**JOB, **changed}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    result = run_train()
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_job_of_one_process_needs_no_more(run_train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    result = run_train("--dry-run")
    assert result.exit_code == 0, result.output


def test_torchrun_and_gpus_must_agree(run_train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    result = run_train("--gpus=4")
    assert result.exit_code == 2
    assert "--gpus=4: 2 processes were started already (torchrun); leave --gpus out" in result.output
