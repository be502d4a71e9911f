"""The processes of one job: which of them this is, and how they share work that each could do alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dnnlib.errors import UserError
from torch_utils.launch import die_with_the_launcher
from torch_utils.place import place_in_job

__all__ = ["ALONE", "Job", "Ranks", "joined_ranks", "local_device", "unflatten_into"]

T = TypeVar("T")
# gloo's threads outlive their group, and need the interpreter to free the last message's tensors: sleeping lends it to
# them. Where it ended before, they would abort the process.
_LETTING_GO_SEC = 0.1


@dataclass(frozen=True)
class Job:
    """A piece of work: how many rows it will give, and what makes its input."""

    rows: int
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `world`; rank 0 prints and writes."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all(self, value: bool) -> bool:
        """Whether it is true in every process."""
        return all(self.gather(value))

    def any(self, *values: bool) -> list[bool]:
        """For each of them, whether it is true in some process: one short message between the CPUs."""
        if self.world == 1:
            return list(values)
        votes = torch.tensor(values, dtype=torch.int32)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return [bool(vote) for vote in votes]

    def gather(self, value: T) -> list[T]:
        """Every process's `value`, in every process, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make()` gives in process 0. If it raises an Exception there, all processes raise it."""
        if self.world == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = make()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        value: T = outcome[0]
        return value

    def sum(self, x: Tensor) -> Tensor:
        """`x`, summed over the processes in place."""
        if self.world > 1:
            dist.all_reduce(x)
        return x

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each by its mean over the processes, all of them in one message. Same shapes and type everywhere."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        unflatten_into(tensors, flat / self.world)

    def require_equal(self, parts: Mapping[str, Tensor | str]) -> None:
        """
        Raises:
            UserError: a part differs between the processes; names the first, and which process differs.
        """
        if self.world == 1:
            return
        mine = [(name, _digest(part)) for name, part in parts.items()]
        for rank, theirs in enumerate(self.gather(mine)):
            for (name, digest), (other_name, other) in zip(mine, theirs, strict=False):
                if (name, digest) != (other_name, other):
                    raise UserError(
                        f"processes {self.rank} and {rank} of {self.world} disagree on {name}; start all of them with "
                        "the same command, files and versions"
                    )

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


def unflatten_into(tensors: Sequence[Tensor], flat: Tensor) -> None:
    """Writes the pieces of `flat`, which follow each other as the tensors do, back into them."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)])


def _digest(part: Tensor | str) -> bytes:
    if isinstance(part, str):
        return hashlib.blake2b(part.encode()).digest()
    values = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(values.data, person=str(part.dtype).encode()[:16]).digest()


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """A block of work with the other processes that torchrun or `launch` started; alone without them.

    Tensors on a CPU travel over gloo; those on a GPU over NCCL if every process has its own. If all
    succeed the processes leave together, so that none loses its partner; one that fails leaves at once.
    """
    place = place_in_job()
    if place is None or place.world == 1:
        yield ALONE
        return
    die_with_the_launcher()
    has_gpu = torch.cuda.is_available() and place.local_world <= torch.cuda.device_count()
    if has_gpu:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo")
    try:
        yield Ranks(place.rank, place.world)
        dist.barrier()
    finally:
        dist.destroy_process_group()
        time.sleep(_LETTING_GO_SEC)


def local_device(name: str) -> str:
    """`cuda` and `auto` mean this process's own GPU if several processes share a machine."""
    place = place_in_job()
    if place is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{place.local_rank}" if place.local_rank < torch.cuda.device_count() else name
