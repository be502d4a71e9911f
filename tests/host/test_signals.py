"""A run that is told to stop saves itself; one that is killed leaves its last save whole."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import train
from tests.forked import Forked
from torch_utils.stop_signals import STOP_SIGNALS
from training.checkpoint import load_state

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--cfg=demo", "--batch=4", "--cbase=256", "--cmax=64", "--resolution=16", "--kimg=1000", "--tick=0.016", "--snap=1",
]  # fmt: skip


def train_with(flags: list[str]) -> None:
    sys.argv = [str(ROOT / "train.py"), *flags]  # --gpus starts it again
    train.main(flags)


def start(drawings: Path, outdir: Path, *more: str) -> Forked:
    flags = [*FLAGS, f"--data={drawings}", f"--outdir={outdir}", *more]
    return Forked(train_with, flags, out=outdir.with_name(f"{outdir.name}-output.txt"))


def wait_for_ticks(outdir: Path, ticks: int, process: Forked) -> Path:
    """Waits until the run has logged and saved `ticks` ticks."""
    for _ in range(6000):
        assert process.returncode is None, process.returncode
        for stats in outdir.glob("*/stats.jsonl"):
            if len(stats.read_text().splitlines()) > ticks:
                return stats.parent
        time.sleep(0.02)
    raise AssertionError("the run logged nothing")


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_stopping_saves(number: signal.Signals, drawings: Path, tmp_path: Path) -> None:
    process = start(drawings, tmp_path)
    run_dir = wait_for_ticks(tmp_path, 1, process)
    os.kill(process.pid, number)
    assert process.wait() == 128 + number
    assert "--resume=latest continues" in process.output
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == last["Progress/kimg"]["mean"] * 1000


def ignoring(number: signal.Signals, flags: list[str]) -> None:
    signal.signal(number, signal.SIG_IGN)
    train_with(flags)


def test_a_signal_that_is_ignored_stays_ignored(drawings: Path, tmp_path: Path) -> None:
    """As with nohup."""
    flags = [*FLAGS, "--kimg=0.064", f"--data={drawings}", f"--outdir={tmp_path / 'runs'}"]
    process = Forked(ignoring, signal.SIGHUP, flags, out=tmp_path / "output.txt")
    wait_for_ticks(tmp_path / "runs", 1, process)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait() == 0, process.output
    assert "Finished at 0.1 kimg" in process.output


def test_in_a_thread_and_a_run_that_is_finished(drawings: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--kimg=0.016", f"--data={drawings}", f"--outdir={tmp_path}", "--resume=latest"]
    runner, results = CliRunner(), []
    for _ in range(2):
        thread = threading.Thread(target=lambda: results.append(runner.invoke(train.main, flags)))
        thread.start()
        thread.join()
    first, again = results
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert "no earlier run called" in first.output
    assert "the run has reached --kimg=0.016 already; a larger --kimg continues it" in again.output
    assert "a larger --kimg" not in first.output


def test_a_killed_run_goes_on_from_its_last_save(drawings: Path, tmp_path: Path) -> None:
    process = start(drawings, tmp_path)
    run_dir = wait_for_ticks(tmp_path, 2, process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = load_state(run_dir)["parts"]["progress"]["nimg"]
    assert saved >= 16
    again = start(drawings, tmp_path, "--resume=latest", f"--kimg={saved / 1000 + 0.016}")
    assert again.wait() == 0, again.output
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == saved + 16
    kimg = [json.loads(line)["Progress/kimg"]["mean"] for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert kimg == sorted(set(kimg))
