"""The heads beside an official discriminator are in its optimiser, averaged over processes, and guarded against NaN."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from kd_plugin.hosts.heads import HeadTraining
from tests.forked import ranks


def networks() -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)


def test_they_join_the_optimizer_of_d() -> None:
    d, g, head = networks()
    training = HeadTraining(d, head.parameters())
    opt_d, opt_g = (torch.optim.Adam(module.parameters(), lr=0.1, betas=(0.0, 0.99)) for module in (d, g))
    before = head.weight.detach().clone()
    for _ in range(2):
        opt_d.zero_grad(), opt_g.zero_grad()
        (head(d(torch.ones(1, 2))).sum() + g(torch.ones(1, 2)).sum()).backward()
        opt_g.step()
        opt_d.step()
    assert [len(optimizer.param_groups) for optimizer in (opt_d, opt_g)] == [2, 1]
    assert opt_d.param_groups[1]["betas"] == (0.0, 0.99)
    assert training.steps == 2
    assert not torch.equal(head.weight, before)
    del training
    gc.collect()
    opt_d.step()  # nothing is left behind


def test_nan_is_replaced() -> None:
    d, _, head = networks()
    training = HeadTraining(d, head.parameters())
    optimizer = torch.optim.SGD(d.parameters(), lr=1.0)
    before = head.weight.detach().clone()
    head.weight.grad = torch.tensor([[float("nan"), 1.0], [float("inf"), -float("inf")]])
    optimizer.step()
    torch.testing.assert_close(before - head.weight, torch.tensor([[0.0, 1.0], [1e5, -1e5]]))
    assert training.steps == 1


def one_of_two(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    d, _, head = networks()
    training = HeadTraining(d, head.parameters())
    optimizer = torch.optim.SGD(d.parameters(), lr=1.0)
    head.weight.grad = torch.full((2, 2), float(rank))
    before = head.weight.detach().clone()
    optimizer.step()
    assert training.steps == 1
    torch.save(before - head.weight.detach(), folder / f"step{rank}.pt")
    dist.barrier()
    os._exit(0)


def test_gradients_are_averaged(tmp_path: Path) -> None:
    for process in ranks(one_of_two, tmp_path, world=2, folder=tmp_path):
        assert process.returncode == 0, process.output
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"step{rank}.pt"), torch.full((2, 2), 0.5))
