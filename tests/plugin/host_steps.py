"""Steps as hosts make them, and the gradients that they leave."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.functional import softplus

from kd_plugin import AnyDistiller

__all__ = ["gradients", "joint", "joint_loss"]


def gradients(*modules: nn.Module) -> list[Tensor]:
    parameters: Iterable[nn.Parameter] = (p for module in modules for p in module.parameters())
    return [p.grad.clone() for p in parameters if p.grad is not None]


def joint_loss(kd: AnyDistiller, d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Of D, with its terms."""
    with kd.capture("real"):
        of_real = d(real)
    with kd.capture("fake"):
        of_fake = d(fake)
    loss = softplus(-of_real).mean() + softplus(of_fake).mean()
    total: Tensor = loss + kd(loss).total
    return total


def joint(kd: AnyDistiller, d: nn.Module, real: Tensor, fake: Tensor) -> list[Tensor]:
    """The gradients of one step of a host that adds the terms to its loss."""
    for module in (d, kd):
        module.zero_grad()
    joint_loss(kd, d, real, fake).backward()
    return gradients(d, kd)
