"""benchmarks/gpu_slot.sh in its smallest form: GPU time is rare, so the script must not fail on a typing error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_slot.sh"


def test_every_part_runs_and_leaves_its_result(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path), "--small"], env=environment, capture_output=True, text=True, timeout=560
    )
    summary = (tmp_path / "summary.txt").read_text()
    texts = {path.stem: path.read_text() for path in tmp_path.glob("*.txt")}
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{texts}"
    assert summary.count(": status 0, ") == 6
    assert "1 passed" in texts["gpu_tests"] or "[100%]" in texts["gpu_tests"]
    for part, words in {
        "kernels": ("a copy moves", "bias_act (2, 4, 16, 16) float32"),
        "step": ("Gmain, s", "iteration, s", "peak memory, GB"),
        "kd_overhead": (
            "added to Dmain by view seen",
            "added to Dmain by view clean",
            "added to Gmain by match",
            "added to Gmain by diversity",
            "added to Dmain by default",
        ),
        "training": ("--kd=none", "--kd=demo", "Finished at"),
    }.items():
        for word in words:
            assert word in texts[part], (part, word)
    for name in ("baseline", "default"):
        with Image.open(tmp_path / f"{name}.png") as grid:
            assert grid.size[0] > 16
    assert len(list(tmp_path.iterdir())) <= 8  # what a lent machine hands back


def test_a_part_that_fails_is_reported_and_the_others_run(tmp_path: Path) -> None:
    """A stand-in for python: `benchmarks.step` fails."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nfor word in "$@"; do [ "$word" = benchmarks.step ] && exit 3; done\nexit 0\n')
    fake.chmod(0o755)
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", str(SCRIPT), str(out), "--small"], env={**os.environ, "PYTHON": str(fake)}, capture_output=True
    )
    lines = (out / "summary.txt").read_text().splitlines()
    assert done.returncode == 1
    assert [line.split(",")[0] for line in lines] == [
        "gpu_tests: status 0", "kernels: status 0", "step: status 3", "kd_overhead: status 0",
        "training:baseline: status 0", "training:default: status 0",
    ]  # fmt: skip
