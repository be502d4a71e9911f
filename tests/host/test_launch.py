"""The launcher, with processes that only sleep: real runs are in test_processes.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.forked import Forked
from torch_utils import launch

ROOT = Path(__file__).parents[2]
PROLOGUE = """
import os, pathlib, signal, sys, time
from torch_utils.launch import die_with_the_launcher

rank = os.environ["RANK"]


def ready():
    pathlib.Path("ready" + rank).touch()

"""
SLEEPS = "ready(); time.sleep(100)"
DIES_WHEN_TOLD = """
if rank == "1":
    ready()
    while not pathlib.Path("die").exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
"""
SAVES_WHEN_STOPPED = """
def save(number, frame):
    time.sleep(0.3)
    pathlib.Path("saved" + rank).touch()
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
"""


def launch_two(folder: Path, code: str, grace: float) -> None:
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(ROOT)
    launch.GRACE_SEC = grace
    sys.exit(launch.launch([sys.executable, "-c", PROLOGUE + code], 2))


def start_two(folder: Path, code: str, grace: float = launch.GRACE_SEC) -> tuple[Forked, list[int]]:
    """The launcher, and the numbers of its two processes, once both are ready."""
    process = Forked(launch_two, folder, code, grace, out=folder / "output.txt")
    for _ in range(3000):
        if all((folder / f"ready{rank}").exists() for rank in range(2)):
            children = children_of(process.pid)
            assert len(children) == 2
            return process, children
        assert process.returncode is None, process.output
        time.sleep(0.02)
    raise AssertionError(process.output)


def children_of(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(pid)]
    return [int(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def wait_for_the_end(pids: Sequence[int]) -> None:
    for _ in range(1500):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.02)
    raise AssertionError(f"{pids} live on")


@pytest.mark.parametrize("obeys", [True, False])
def test_a_process_that_dies_takes_the_others_along(obeys: bool, tmp_path: Path) -> None:
    """Also one that does not react to SIGTERM, because it waits for the dead one in a collective operation."""
    ignore = "" if obeys else "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    process, children = start_two(tmp_path, ignore + DIES_WHEN_TOLD + SLEEPS, grace=0.5)
    (tmp_path / "die").touch()
    assert process.wait() == 137, process.output
    assert "process 1 of 2 failed (killed by SIGKILL): it wrote no message" in process.output
    wait_for_the_end(children)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_what_it_causes_is_waited_for(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    process, children = start_two(tmp_path, SAVES_WHEN_STOPPED + SLEEPS)
    os.kill(process.pid, number)
    assert process.wait() == status, process.output
    assert all((tmp_path / f"saved{rank}").exists() for rank in range(2))
    wait_for_the_end(children)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's death signal is Linux's")
def test_no_process_survives_the_launcher(tmp_path: Path) -> None:
    process, children = start_two(tmp_path, "die_with_the_launcher(); " + SLEEPS)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_the_end(children)
