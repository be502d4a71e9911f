"""The processes of one job: which of them this is, and how they share work that each could do alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ALONE", "Job", "Ranks", "join_ranks", "local_device"]


@dataclass(frozen=True)
class Job:
    """A piece of work: how many rows it will give, and what makes its input."""

    rows: int
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `world`, rank 0 speaks and writes for all."""

    rank: int = 0
    world: int = 1

    @property
    def speaks(self) -> bool:
        return self.rank == 0

    def all(self, value: bool) -> bool:
        """Whether it is true in every process."""
        if self.world == 1:
            return value
        votes: list[bool] = [False] * self.world
        dist.all_gather_object(votes, value)
        return all(votes)

    def map(self, jobs: Iterable[Job], work: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """`work(job.make())` of every job, in their order, in every process, each done by one of them.

        Args:
            jobs: the same in every process; only those of this process are made.
            work: gives [job.rows, ...] of the same shape, type and device otherwise.
        """
        if self.world == 1:
            for job in jobs:
                yield work(job.make())
            return
        remaining = iter(jobs)
        while turn := list(islice(remaining, self.world)):
            # Who has no job in the last turn does the first one again: collectives need everyone.
            mine = work((turn[self.rank] if self.rank < len(turn) else turn[0]).make())
            most = max(job.rows for job in turn)
            padded = mine.new_zeros([most, *mine.shape[1:]])
            padded[: len(mine)] = mine
            parts = [torch.empty_like(padded) for _ in range(self.world)]
            dist.all_gather(parts, padded)
            for job, part in zip(turn, parts, strict=False):
                yield part[: job.rows]


ALONE = Ranks()


def join_ranks() -> Ranks:
    """Joins the other processes that torchrun has started; alone where it has not.

    Over NCCL where every process has a GPU of its own, over gloo otherwise.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    has_gpu = torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count()
    dist.init_process_group("nccl" if has_gpu else "gloo")
    return Ranks(dist.get_rank(), world)


def local_device(name: str) -> str:
    """`cuda` and `auto` mean this process's own GPU where several processes share a machine."""
    local = os.environ.get("LOCAL_RANK")
    own = local is not None and torch.cuda.is_available() and int(local) < torch.cuda.device_count()
    return f"cuda:{local}" if own and name in ("auto", "cuda") else name
