"""Hostile pickles: none runs anything, and each is refused with a reason, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.official.hostile import HOSTILE, write_all

ROOT = Path(__file__).parents[2]
MOST_MB = 1000


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one process that reads them all, in an empty folder."""
    folder, empty = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("empty")
    write_all(folder)
    program = [sys.executable, "-m", "tests.official.hostile", str(folder)]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=empty, env=there, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(empty.iterdir()) == []
    result: dict[str, Any] = json.loads(done.stdout)
    assert result.pop("good")["outcome"] == "read"
    return result


def test_there_are_many() -> None:
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", [*HOSTILE, "3 GB of nothing"])
def test_it_is_refused_and_nothing_runs(outcomes: dict[str, Any], name: str) -> None:
    found = outcomes[name]
    assert found["events"] == []
    assert found["outcome"] not in ("", "read")
    assert "Traceback" not in found["outcome"]
    assert len(found["outcome"]) < 300
    assert found["MB"] < MOST_MB


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("os.system", "it names os.system"),
        ("nested in numbers", "it names os.system"),
        ("dill", "saved by dill"),
        ("INST", "the operation INST"),
        ("a persistent id", "persistent id"),
        ("tuples 500,000 deep", "nested more than"),
        ("lists 400,000 deep", "wait to be put together"),
        ("two million operations", "more than 1000000 operations"),
        ("numbers unpacked a thousand times", "more numbers than it has bytes"),
        ("a tensor of 8 TB", "beyond its 4 numbers"),
        ("3 GB of nothing", "it has 3.2 GB"),
        ("cut in the middle", "cut off"),
        ("TensorFlow of StyleGAN1", "StyleGAN1 is not read"),
        ("an empty dictionary", "it holds no networks$"),
    ],
)
def test_the_reason_is_told(outcomes: dict[str, Any], name: str, reason: str) -> None:
    assert re.search(reason, outcomes[name]["outcome"]), outcomes[name]
