"""A user's loop, as one of two processes, or as one with the joint batch.

D is in DistributedDataParallel, or its gradients are averaged by hand, as in stylegan3, and the heads are forgotten.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import kd_plugin
from kd_plugin.distributed import summed
from tests.plugin.conftest import PROMPTS, Discriminator, FakeTeacher

ROWS, STEPS = 8, 4


def in_one_pass(kd: kd_plugin.AnyDistiller, d: nn.Module, real: Tensor, fake: Tensor, parts: int) -> None:
    with kd.capture("real"):
        d_real = d(real)
    with kd.capture("fake"):
        d_fake = d(fake)
    loss = (d_fake - d_real).mean()
    ((loss + kd(loss).total) / parts).backward()


def in_two_passes(kd: kd_plugin.AnyDistiller, d: nn.Module, real: Tensor, fake: Tensor, _parts: int) -> None:
    with kd.capture("fake"):
        d_fake = d(fake)
    d_fake.mean().backward()
    with kd.capture("real"):
        d_real = d(real)
    (-d_real).mean().backward()


def main(folder: Path, how: str) -> None:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inner = Discriminator()
    d: nn.Module = inner
    if world > 1:
        dist.init_process_group("gloo")
        d = inner if how == "by hand" else DistributedDataParallel(inner)
    kd = kd_plugin.attach(
        d, teacher=FakeTeacher(9), prompts=PROMPTS, head="linear", p=0.5, norm="standardise", centre=True,
        balance=0.0 if how == "carried" else 0.5, match=1.0, critic=0.0, diversity=0.5, match_distance="energy",
        match_pull=40.0, match_memory=12,
        carried=how == "carried",
    )  # fmt: skip
    optimizer = torch.optim.SGD([*d.parameters(), *kd.parameters()], lr=0.05)
    shift = torch.zeros(3, 8, 8, requires_grad=True)  # all that the generator learns
    mine = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    draws = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        real, fake = (torch.rand(ROWS, 3, 8, 8, generator=draws)[mine] * 2 - 1 for _ in range(2))
        optimizer.zero_grad()
        kd.begin_step()
        parts = 2 if how == "accumulated" else 1
        for x, y in zip(real.chunk(parts), fake.chunk(parts), strict=True):
            (in_two_passes if how == "carried" else in_one_pass)(kd, d, x, y, parts)
        if how == "by hand":
            for parameter in inner.parameters():
                assert parameter.grad is not None
                parameter.grad = summed(parameter.grad) / world
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
