"""A user's loop with D in DistributedDataParallel, as one of two processes, or as one with the joint batch."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import kd_plugin
from kd_plugin.distributed import summed
from tests.plugin.conftest import PROMPTS, Discriminator, FakeTeacher

ROWS, STEPS = 8, 4


def main(folder: Path, accumulate: bool) -> None:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inner = Discriminator()
    d: nn.Module = inner
    if world > 1:
        dist.init_process_group("gloo")
        d = DistributedDataParallel(inner)
    kd = kd_plugin.attach(
        d, teacher=FakeTeacher(9), prompts=PROMPTS, head="linear", p=0.5, norm="standardise", centre=True, balance=0.5,
        match=1.0, diversity=0.5, match_pull=40.0,
    )  # fmt: skip
    optimizer = torch.optim.SGD([*d.parameters(), *kd.parameters()], lr=0.05)
    shift = torch.zeros(3, 8, 8, requires_grad=True)  # all that the generator learns
    mine = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    draws = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        real, fake = (torch.rand(ROWS, 3, 8, 8, generator=draws)[mine] * 2 - 1 for _ in range(2))
        optimizer.zero_grad()
        parts = 2 if accumulate else 1
        kd.begin_step()
        for x, y in zip(real.chunk(parts), fake.chunk(parts), strict=True):
            with kd.capture("real"):
                d_real = d(x)
            with kd.capture("fake"):
                d_fake = d(y)
            loss = (d_fake - d_real).mean()
            ((loss + kd(loss).total) / parts).backward()
        optimizer.step()
        made = fake + shift
        loss_g = -inner(made).mean()
        distilled = kd.for_generator(made, real, loss_g)
        assert distilled.terms["scale_match"] > 1
        (gradient,) = torch.autograd.grad(loss_g + distilled.total, shift)
        with torch.no_grad():
            shift -= summed(gradient) / world
    states = {"D": inner.state_dict(), "kd": kd.state_dict(), "G": {"shift": shift.detach()}}
    torch.save(states, folder / f"{world}-{rank}.pt")
    if world > 1:
        dist.barrier()
        os._exit(0)  # not torch's business any more: under load, gloo's threads were seen to abort while they go
