"""The moving average of the generator, which is what users sample from."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ema_beta", "update_ema"]


def ema_beta(batch: int, half_life_kimg: float, rampup: float | None, nimg: int, start_kimg: float = 0.0) -> float:
    """The decay of one step of `batch` images, after `nimg` images in all.

    The half-life is `half_life_kimg`, early on at most `rampup` times the images shown so far. Before `start_kimg` the
    average is a copy.
    """
    if nimg < start_kimg * 1000:
        return 0.0
    half_life_nimg = half_life_kimg * 1000
    if rampup is not None:
        half_life_nimg = min(half_life_nimg, nimg * rampup)
    return 0.5 ** (batch / max(half_life_nimg, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, beta: float, with_buffers: bool = False) -> None:
    """average <- beta * average + (1 - beta) * network; buffers (w_avg among them) are copied, or averaged too."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - beta)
    if with_buffers:
        torch._foreach_lerp_(list(average.buffers()), list(network.buffers()), 1 - beta)
        return
    for kept, now in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(now)
