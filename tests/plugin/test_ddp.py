"""D in DistributedDataParallel: two processes learn what one learns on both batches, heads and statistics included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


def run_processes(world: int, folder: Path, *flags: str) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [folder / f"{world}-{rank}.pt" for rank in range(world)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.plugin.ddp_step", str(out), *flags],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.mark.parametrize("flags", [(), ("--accumulate",)])
def test_two_processes_are_one(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (one,) = run_processes(1, tmp_path, *flags)
    first, second = run_processes(2, tmp_path, *flags)
    assert one["G"]["shift"].abs().max() > 0.01
    for part in ("D", "kd", "G"):
        for name, value in first[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second[part][name]), name
    if flags:
        return  # the balance is worked out for each call: calls of another size, another balance
    for part in ("D", "kd", "G"):
        for name, value in one[part].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(first[part][name], value, rtol=1e-5, atol=1e-6, msg=name)
