"""Gradients that the host's own backward pass carries along: added to its own where it reaches some tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import Balance
from kd_plugin.errors import CaptureError
from kd_plugin.student.features import at_least_float32, plain

__all__ = ["Cargo", "Load"]


@dataclass(frozen=True)
class Load:
    """Gradients of some terms' loss.

    tensors:    by tensor, in the order of `Cargo.take`, float32 or float64; None: the loss does not depend on it.
    parameters: of the heads, in the order of `Cargo.parameters`.
    factor:     by which all are multiplied, after balancing.
    balance:    scales them relative to the host's gradients at the tensors; None: does not.
    """

    tensors: Sequence[Tensor | None]
    parameters: Sequence[Tensor | None] = ()
    factor: float = 1.0
    balance: Balance | None = None

    @cached_property
    def squared_norm(self) -> Tensor:
        """At the tensors."""
        return torch.stack([g.float().square().sum() for g in self.tensors if g is not None]).sum()


class Cargo:
    """The loads of one block of calls. They are added once, by the first backward pass that frees its graph.

    A pass that builds a graph of its own (`create_graph=True`, for a penalty on gradients such as R1) carries nothing:
    the penalty stays the host's.

    Args:
        parameters: that get a gradient too; it reaches them as any other does, with the hooks of
            DistributedDataParallel.
        loss_scale: by which the host has multiplied its loss (GradScaler), and therefore the gradients it will see.
        own, parts: the roles of the images, and those that make a step.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter] = (),
        loss_scale: float = 1.0,
        own: Collection[str] = ("fake",),
        parts: Collection[str] = ("fake",),
    ) -> None:
        self.parameters = tuple(parameters)
        self._loss_scale, self._own, self._parts = loss_scale, own, parts
        self._taken = 0
        self._waiting: set[int] = set()  # tensors that the host's backward pass has not reached yet
        self._loads: Sequence[Load] | None = None
        self._factors: list[Tensor | float] = []  # by load; empty before the backward pass
        self._adversarial: list[Tensor] = []  # squared norms of the host's gradients

    def take(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor of the host -> a leaf from which to compute losses, and what the host continues with instead."""
        place = self._taken
        self._taken += 1
        leaf = at_least_float32(plain(tensor.detach())).requires_grad_()
        if not (torch.is_grad_enabled() and tensor.requires_grad):
            return leaf, tensor.clone()
        self._waiting.add(place)
        passed: Tensor = _Carry.apply(self, place, plain(tensor), *self.parameters)  # type: ignore[no-untyped-call]
        return leaf, passed if type(tensor) is Tensor else passed.as_subclass(type(tensor))

    def load(self, loads: Sequence[Load]) -> None:
        """What is to be added, in one load for each balance."""
        self._loads = [load for load in loads if any(gradient is not None for gradient in load.tensors)]

    def deliver(self, place: int, gradient: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The host's gradient at a tensor, with what is added to it; and the gradients of the parameters."""
        of_parameters: list[Tensor | None] = [None] * len(self.parameters)
        if self._loads is None:
            raise CaptureError("backward was called inside a capture block; close the block first")
        if place not in self._waiting:  # a second pass, over a graph that was kept
            return gradient, of_parameters
        self._waiting.discard(place)
        balanced = [load for load in self._loads if load.balance is not None]
        if balanced:
            self._adversarial.append((gradient.float() / self._loss_scale).square().sum())
        first = not self._factors
        if first:
            self._factors = [self._factor(load) for load in self._loads]
        total = gradient
        for load, factor in zip(self._loads, self._factors, strict=True):
            total = _plus(total, load.tensors[place], factor)
            if first:  # with the first tensor that is reached
                for number, extra in enumerate(load.parameters):
                    of_parameters[number] = _plus(of_parameters[number], extra, factor)
        if not self._waiting:
            for load in balanced:
                load.balance.note(self._squares(load), self._own, self._parts)  # type: ignore[union-attr]
        return total, of_parameters

    def _factor(self, load: Load) -> Tensor | float:
        given = load.factor * self._loss_scale
        return given if load.balance is None else load.balance.scale(self._squares(load)) * given

    def _squares(self, load: Load) -> Tensor:
        return torch.stack([load.squared_norm, torch.stack(self._adversarial).sum()])


def _plus(gradient: Tensor | None, extra: Tensor | None, factor: Tensor | float) -> Any:
    """gradient + factor extra, of the type of the former; None counts as 0."""
    if extra is None:
        return gradient
    return extra * factor if gradient is None else gradient + (extra * factor).to(gradient.dtype)


class _Carry(torch.autograd.Function):
    """The identity; in the backward pass a cargo adds its gradients."""

    @staticmethod
    def forward(ctx: Any, cargo: Cargo, place: int, tensor: Tensor, *parameters: Tensor) -> Tensor:
        ctx.cargo, ctx.place, ctx.parameters = cargo, place, len(parameters)
        return tensor.clone()  # what follows may work in place, as nn.ReLU(inplace=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            return (None, None, gradient, *[None] * ctx.parameters)
        total, of_parameters = ctx.cargo.deliver(ctx.place, gradient)
        return (None, None, total, *of_parameters)
