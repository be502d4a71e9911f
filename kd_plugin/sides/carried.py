"""Gradients that the host's own backward pass carries along: added to its own where it reaches some tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import Balance
from kd_plugin.errors import CaptureError

__all__ = ["Cargo", "Share"]


@dataclass(frozen=True)
class Share:
    """What some terms add.

    gradients:  of their loss, by tensor in the order of `Cargo.take`, float32 or float64; None: does not depend on it.
    parameters: of the heads, in the order of `Cargo.parameters`.
    balance:    scales both, relative to the host's gradients at the tensors; None: as they are.
    """

    gradients: Sequence[Tensor | None]
    parameters: Sequence[Tensor | None] = ()
    balance: Balance | None = None

    @property
    def squared_norm(self) -> Tensor:
        return torch.stack([g.float().square().sum() for g in self.gradients if g is not None]).sum()


class Cargo:
    """The gradients for one block of calls. They are added once, by the first backward pass that frees its graph.

    A pass that builds a graph of its own (`create_graph=True`, for a penalty on gradients such as R1) carries nothing:
    the penalty stays the host's.

    Args:
        parameters: that get a gradient too; it reaches them as any other does, with the hooks of
            DistributedDataParallel.
        loss_scale: by which the host has multiplied its loss (GradScaler), and therefore the gradients it will see.
        part, parts: the role of the images, and the roles that make a step.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter] = (),
        loss_scale: float = 1.0,
        part: str = "fake",
        parts: Collection[str] = ("fake",),
    ) -> None:
        self.parameters = tuple(parameters)
        self.learnable = False  # whether anything could learn from what was taken
        self._loss_scale, self._part, self._parts = loss_scale, part, parts
        self._taken = 0
        self._shares: Sequence[Share] | None = None
        self._open: set[int] = set()  # tensors that the host's backward pass has not reached yet
        self._adversarial: list[Tensor] = []
        self._scales: list[Tensor | None] = []

    def take(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor of the host -> a leaf from which to compute losses, and what the host goes on with instead."""
        leaf = tensor.detach()
        leaf = (leaf if leaf.dtype == torch.float64 else leaf.float()).requires_grad_()
        self.learnable |= tensor.requires_grad
        if not (torch.is_grad_enabled() and tensor.requires_grad):
            return leaf, tensor.clone()
        self._open.add(self._taken)
        passed: Tensor = _Carry.apply(self, self._taken, tensor, *self.parameters)  # type: ignore[no-untyped-call]
        self._taken += 1
        return leaf, passed

    def load(self, shares: Sequence[Share]) -> None:
        """What is to be added, one share for each balance; without it, nothing is."""
        self._shares = [share for share in shares if any(g is not None for g in share.gradients)]

    def deliver(self, place: int, gradient: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The host's gradient at a tensor, with what is added to it; and the gradients of the parameters."""
        nothing: list[Tensor | None] = [None] * len(self.parameters)
        if self._shares is None:
            raise CaptureError("backward was called inside a capture block; close the block first")
        if place not in self._open:  # a second pass, over a graph that was kept
            return gradient, nothing
        first = not self._scales
        self._measure(gradient)
        self._open.discard(place)
        total = gradient
        for share, scale in zip(self._shares, self._scales, strict=True):
            extra = share.gradients[place]
            if extra is not None:
                total = total + self._scaled(extra, scale).to(gradient.dtype)
        if not self._open:
            self._close()
        if first:
            nothing = [self._sum(number) for number in range(len(self.parameters))]
        return total, nothing

    def _measure(self, gradient: Tensor) -> None:
        self._adversarial.append((gradient.float() / self._loss_scale).square().sum())
        if not self._scales:
            self._scales = [self._scale_of(share) for share in self._shares or ()]

    def _scale_of(self, share: Share) -> Tensor | None:
        if share.balance is None:
            return None
        return share.balance.scale(self._squares(share))

    def _squares(self, share: Share) -> Tensor:
        return torch.stack([share.squared_norm, torch.stack(self._adversarial).sum()])

    def _close(self) -> None:
        for share in self._shares or ():
            if share.balance is not None:
                share.balance.note(self._squares(share), self._part, self._parts)

    def _sum(self, number: int) -> Tensor | None:
        """Of a parameter's gradients."""
        parts = [
            self._scaled(share.parameters[number], scale)
            for share, scale in zip(self._shares or (), self._scales, strict=True)
            if share.parameters and share.parameters[number] is not None
        ]
        return torch.stack(parts).sum(0).to(self.parameters[number].dtype) if parts else None

    def _scaled(self, gradient: Tensor | None, scale: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient * self._loss_scale if scale is None else gradient * (scale * self._loss_scale)


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
