"""Thread settings: what is set, what a user's choice overrides, and the container's quota."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib import threads
from torch_utils import launch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("fraction", "spin"), [(0.0, threads.SPIN_IDLE), (0.9, threads.SPIN_BUSY), (None, threads.SPIN_IDLE)]
)
def test_waiting_threads_sleep_soon_and_sooner_on_a_busy_machine(
    fraction: float | None, spin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: os.cpu_count() or 1)
    environment: dict[str, str] = {}
    threads.apply_settings(environment, fraction)
    assert environment == {"GOMP_SPINCOUNT": str(spin)}


def test_the_busy_fraction_is_that_of_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """user nice system idle iowait ...: of 40 ticks 10 are idle."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n")
    monkeypatch.setattr(
        threads.time, "sleep", lambda seconds: stat.write_text("cpu  120 0 60 808 52 0 0 0 0 0\ncpu0 1 2 3\n")
    )
    assert threads.cpus_in_use(stat) == 0.75
    assert threads.cpus_in_use(tmp_path / "missing") is None


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_the_users_choice_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: os.cpu_count() or 1)
    environment = {name: "x"}
    threads.apply_settings(environment, None)
    assert environment == {name: "x"}


def test_a_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SET_HERE", set())
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 4)
    environment: dict[str, str] = {}
    threads.apply_settings(environment, None)
    assert environment["OMP_NUM_THREADS"] == "4"
    environment = {"OMP_NUM_THREADS": "8"}
    threads.apply_settings(environment, None)
    assert environment["OMP_NUM_THREADS"] == "8"


def test_processes_share_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this module has set for one process is not taken for the user's choice for each of several."""
    monkeypatch.setattr(launch, "usable_cpus", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(launch, "SET_HERE", {"OMP_NUM_THREADS"})
    assert launch._threads_of(2) == {"OMP_NUM_THREADS": "2"}
    assert launch._threads_of(8) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(launch, "SET_HERE", set())
    assert launch._threads_of(2) == {}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
        ({"cpu.max": "what\n"}, None),
    ],
)
def test_quota_of_a_container(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert threads.cpu_quota(tmp_path) == quota


def test_usable_cpus_are_the_fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for quota, expected in ((None, 8), (2.5, 3), (0.2, 1), (16.0, 8)):
        monkeypatch.setattr(threads, "cpu_quota", lambda quota=quota: quota)
        assert threads.usable_cpus() == expected


def test_a_busy_machine_is_named() -> None:
    assert threads.busy_note(None) is None
    assert threads.busy_note(0.2) is None
    note = "this machine is busy (80% of its CPUs are in use): training will be slower than usual"
    assert threads.busy_note(0.8) == note


@pytest.mark.parametrize("script", ["train.py", "generate.py", "evaluate.py"])
def test_scripts_set_it_before_torch_is_imported(script: str) -> None:
    """The runtime reads the variables once: when torch is imported they must be there."""
    code = f"""
import builtins, os, runpy, sys
real = builtins.__import__
def watched(name, *args, **kwargs):
    if name.split(".")[0] == "torch" and "torch" not in sys.modules:
        print("spin", os.environ.get("GOMP_SPINCOUNT"))
        raise SystemExit
    return real(name, *args, **kwargs)
builtins.__import__ = watched
sys.argv = ["{script}", "--help"]
runpy.run_path("{script}", run_name="__main__")
"""
    environment = {name: value for name, value in os.environ.items() if name not in threads.WAITING}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() in {f"spin {threads.SPIN_IDLE}", f"spin {threads.SPIN_BUSY}"}, done.stderr
