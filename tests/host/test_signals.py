"""A run that is told to stop saves itself; one that is killed leaves its last save whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.checkpoint import load_state

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable, "train.py", "--cfg=demo", "--batch=4", "--cbase=256", "--cmax=64", "--kimg=1000", "--tick=0.016",
    "--snap=1",
]  # fmt: skip


def start(drawings: Path, outdir: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, f"--data={drawings}", f"--outdir={outdir}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_ticks(outdir: Path, ticks: int, process: subprocess.Popen[str]) -> Path:
    """Waits until the run has logged and saved `ticks` ticks."""
    for _ in range(1200):
        assert process.poll() is None, process.communicate()[0]
        for stats in outdir.glob("*/stats.jsonl"):
            if len(stats.read_text().splitlines()) > ticks:
                return stats.parent
        time.sleep(0.1)
    raise AssertionError("the run logged nothing")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopping_saves(number: signal.Signals, status: int, drawings: Path, tmp_path: Path) -> None:
    process = start(drawings, tmp_path)
    run_dir = wait_for_ticks(tmp_path, 1, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status
    assert "--resume=latest goes on" in output
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == last["Progress/kimg"]["mean"] * 1000


def test_a_killed_run_goes_on_from_its_last_save(drawings: Path, tmp_path: Path) -> None:
    process = start(drawings, tmp_path)
    run_dir = wait_for_ticks(tmp_path, 2, process)
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    saved = load_state(run_dir)["parts"]["progress"]["nimg"]
    assert saved >= 16
    command = [
        *COMMAND,
        f"--data={drawings}",
        f"--outdir={tmp_path}",
        "--resume=latest",
        f"--kimg={saved / 1000 + 0.016}",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == saved + 16
    kimg = [json.loads(line)["Progress/kimg"]["mean"] for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert kimg == sorted(set(kimg))
