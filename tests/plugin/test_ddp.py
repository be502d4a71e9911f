"""Two processes learn what one learns on both batches, heads and statistics included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forked import ranks
from tests.plugin import ddp_step


def run_processes(world: int, folder: Path, how: str) -> list[dict[str, Any]]:
    for process in ranks(ddp_step.main, folder, how, world=world, folder=folder):
        assert process.returncode == 0, process.output
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("how", ["joint", "accumulated", "by hand", "carried"])
def test_two_processes_are_one(tmp_path: Path, how: str) -> None:
    (one,) = run_processes(1, tmp_path, how)
    first, second = run_processes(2, tmp_path, how)
    assert one["G"]["shift"].abs().max() > 0.01
    for part in ("D", "kd", "G"):
        for name, value in first[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second[part][name]), name
    if how == "accumulated":
        return  # the balance is worked out for each call: calls of another size, another balance
    for part in ("D", "kd", "G"):
        for name, value in one[part].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(first[part][name], value, rtol=1e-5, atol=1e-6, msg=name)
