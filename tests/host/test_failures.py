"""A full disk, no memory, and runs that are killed: one line, nothing half-written, nothing lost."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

import generate
import train
from tests.forked import Forked
from training.checkpoint import load_snapshot, load_state
from training.failures import explained

FLAGS = ["--cfg=demo", "--batch=4", "--cbase=256", "--cmax=64", "--resolution=16", "--tick=0.004", "--snap=1"]
KILLS = int(os.environ.get("KD_KILLS", "4"))  # KD_KILLS=100: some minutes


def with_largest_file(size: int, flags: list[str]) -> None:
    """As a disk that is full: a file that grows beyond this is refused."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    train.main(flags)


def snapshot_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "log.txt"}


@pytest.mark.parametrize("part", [0.2, 0.9])
def test_a_full_disk(part: float, drawings: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, f"--data={drawings}", f"--outdir={tmp_path / 'runs'}", "--resume=latest"]
    first = Forked(train.main, [*flags, "--kimg=0.008"], out=tmp_path / "first.txt")
    assert first.wait() == 0, first.output
    (run_dir,) = (tmp_path / "runs").iterdir()
    before = snapshot_of(run_dir)
    size = int((run_dir / "training-state.pt").stat().st_size * part)
    full = Forked(with_largest_file, size, [*flags, "--kimg=0.016"], out=tmp_path / "full.txt")
    assert full.wait() == 1, full.output
    error = full.output.splitlines()[-1]
    assert error.startswith("Error: '")
    assert "could not be written (File too large); make room, or give another --outdir" in error
    assert "Traceback" not in full.output
    after = snapshot_of(run_dir)
    assert [name for name in after if name.startswith(".")] == []
    for name in ("training-state.pt", "network-snapshot-000000.008.safetensors"):
        assert after[name] == before[name]
    again = Forked(train.main, [*flags, "--kimg=0.016"], out=tmp_path / "again.txt")
    assert again.wait() == 0, again.output
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == 16


def with_memory(size: int, flags: list[str]) -> None:
    import mmap

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * mmap.PAGESIZE + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    generate.main(flags)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_no_memory(drawings: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, f"--data={drawings}", f"--outdir={tmp_path / 'runs'}", "--kimg=0.004"]
    first = Forked(train.main, flags, out=tmp_path / "first.txt")
    assert first.wait() == 0, first.output
    (snapshot,) = tmp_path.glob("runs/*/network-snapshot-0*")
    made = [f"--network={snapshot}", "--seeds=0-4095", "--batch=4096", f"--outdir={tmp_path / 'out'}"]
    short = Forked(with_memory, 64 << 20, made, out=tmp_path / "short.txt")
    assert short.wait() == 1, short.output
    assert short.output.splitlines()[-1].startswith("Error: not enough memory; try a smaller --batch"), short.output


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory on the GPU; try a "),
        (MemoryError(), "not enough memory; try a smaller --batch-gpu, --batch, --cbase"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory; try"),
        (PermissionError(13, "Permission denied", "a"), "'a' could not be written (Permission denied); allow"),
        (OSError(28, "No space left on device"), "a file could not be written (No space left on device); make room"),
        (RuntimeError("shapes differ"), ""),
        (FileNotFoundError(2, "No such file"), ""),
    ],
)  # fmt: skip
def test_the_line(error: Exception, line: str) -> None:
    flags = [name for parameter in train.main.params for name in parameter.opts]
    got = explained(error, flags)
    assert got.startswith(line)
    assert bool(got) == bool(line)
    if isinstance(error, torch.OutOfMemoryError):
        assert "a larger --num-fp16-res" in got
    if line:
        assert "--resume=latest continues" in got


def test_kills_at_random_moments(drawings: Path, tmp_path: Path) -> None:
    """Whatever is being written; the end is that of a run that nobody killed, bit for bit."""
    kimg = 0.004 * (20 + 5 * KILLS)
    flags = [*FLAGS, f"--data={drawings}", "--kd=demo", f"--kimg={kimg}", "--metrics=kid8_full", "--detector=demo"]
    flags += ["--snap-keep=1", "--resume=latest"]
    moments, killed = random.Random(0), 0
    for number in range(20 * KILLS):
        process = Forked(train.main, [*flags, f"--outdir={tmp_path / 'killed'}"], out=tmp_path / f"{number}.txt")
        if killed < KILLS:
            time.sleep(moments.uniform(0.2, 3.0))
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
        if (status := process.wait()) == 0:
            break
        assert status == -signal.SIGKILL, process.output
        killed += 1
        for run_dir in (tmp_path / "killed").glob("*"):
            if (run_dir / "training-state.pt").exists():
                load_state(run_dir)
            for snapshot in run_dir.glob("network-snapshot-*"):
                load_snapshot(snapshot)
    print(f"{killed} kills")
    whole = Forked(train.main, [*flags, f"--outdir={tmp_path / 'whole'}"], out=tmp_path / "whole.txt")
    assert whole.wait() == 0, whole.output
    newest = [max(tmp_path.glob(f"{name}/*/network-snapshot-0*")) for name in ("killed", "whole")]
    whole_kimg, rest = divmod(round(kimg * 1000), 1000)
    assert [path.name for path in newest] == [f"network-snapshot-{whole_kimg:06d}.{rest:03d}.safetensors"] * 2
    assert newest[0].read_bytes()[-1000:] == newest[1].read_bytes()[-1000:]
    for name in ("stats.jsonl", "metric-kid8_full.jsonl"):
        lines = [[json.loads(line) for line in (path.parent / name).read_text().splitlines()] for path in newest]
        assert len(lines[0]) == len(lines[1])
    states = [load_state(path.parent)["parts"] for path in newest]
    for role in ("G", "D", "G_ema"):
        for key, value in states[0][role].items():
            assert torch.equal(value, states[1][role][key]), key
