"""Communication between processes; without effect in a single one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist

__all__ = ["average_gradients", "averaged", "gathered", "rank", "summed", "world"]


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Over all processes."""
    if world() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def averaged(values: Tensor) -> Tensor:
    """Over all processes."""
    return values if world() == 1 else summed(values) / world()


def gathered(rows: Tensor) -> Tensor:
    """[N, E], equally many in each process, -> [world * N, E], those of all.

    A gradient reaches this process's own rows, times the number of processes: averaged over them, as gradients are, it
    is that of the joint batch.
    """
    if world() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[rank()] = rows + (world() - 1) * (rows - rows.detach())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """From now on, gradients of these parameters are averaged over all processes in the backward pass.

    For a head beside a D whose gradients are averaged by DistributedDataParallel or by the training loop, which know
    nothing of the head's. Where gradients are accumulated, what was averaged before is averaged again, which changes
    nothing.
    """

    def average(parameter: Tensor) -> None:
        if parameter.grad is not None:  # also called after a pass that had no gradient for it
            parameter.grad = averaged(parameter.grad)

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]
