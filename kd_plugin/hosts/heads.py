"""The heads beside an official discriminator: trained by its optimiser, averaged and guarded as it is."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from kd_plugin.distributed import averaged
from kd_plugin.optimizer_steps import watch_steps

__all__ = ["HeadTraining"]

_LARGEST = 1e5  # what official loops replace an infinite gradient by


class HeadTraining:
    """Joins the optimiser that trains D before its first step; from then on, before each step, gradients of the heads
    are averaged over the processes, and NaN and infinity are replaced.

    They stay outside D, so that its pickles load without this package.

    Args:
        discriminator: D.
        heads: their parameters.
    """

    def __init__(self, discriminator: nn.Module, heads: Iterable[nn.Parameter]) -> None:
        self._discriminator = discriminator
        self._heads = list(heads)
        self.steps = 0  # of D's optimiser
        self._optimizer: weakref.ref[Optimizer] | None = None  # that one
        watch_steps(self)

    def before_step(self, optimizer: Optimizer) -> None:
        if self._optimizer is None and self._trains_d(optimizer):
            self._optimizer = weakref.ref(optimizer)
            if self._heads:
                optimizer.add_param_group({"params": self._heads})
        if self._optimizer is None or self._optimizer() is not optimizer:
            return
        self.steps += 1
        with_gradient = [parameter for parameter in self._heads if parameter.grad is not None]
        if with_gradient:
            flat = averaged(torch.cat([p.grad.flatten() for p in with_gradient if p.grad is not None]))
            flat = torch.nan_to_num(flat, nan=0, posinf=_LARGEST, neginf=-_LARGEST)
            parts = torch.split(flat, [p.numel() for p in with_gradient])
            for parameter, gradient in zip(with_gradient, parts, strict=True):
                parameter.grad = gradient.view_as(parameter)

    def _trains_d(self, optimizer: Optimizer) -> bool:
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return any(id(parameter) in trained for parameter in self._discriminator.parameters())
