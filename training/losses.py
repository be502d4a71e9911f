"""The adversarial losses and the two regularisers, as pure functions.

Sources: Goodfellow et al. 2014 (non-saturating), Lim and Ye 2017 (hinge), Mescheder et al. 2018 (R1), Karras et al.
2020 (path length).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "discriminator_loss", "generator_loss", "path_lengths", "path_penalty", "r1_penalty"]

LOSSES = ("logistic", "hinge")


def generator_loss(fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Batch mean of -log sigmoid(D(G(z))), or, "hinge", of -D(G(z))."""
    return -fake_logits.mean() if kind == "hinge" else F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Batch mean of -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), or, "hinge", of (1 - D(x))+ + (1 + D(G(z)))+."""
    if kind == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """The batch mean of |dD/dx|^2. `real` [N, C, H, W] must require gradients; the result is differentiable."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(fake: Tensor, ws: Tensor) -> Tensor:
    """|J_w^T y| for Gaussian images y, one length per sample: [N].

    Args:
        fake: [N, C, H, W] images made from `ws`.
        ws: [N, num_ws, w_dim]; the length is the mean over layers of the squared norm, under a root.
    """
    # Scaled so that the length does not depend on the resolution.
    noise = torch.randn_like(fake) / math.sqrt(fake.shape[2] * fake.shape[3])
    (gradient,) = torch.autograd.grad((fake * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_penalty(lengths: Tensor, running_mean: Tensor) -> Tensor:
    """Mean squared deviation of the lengths [N] from their running mean (a scalar without gradient)."""
    return (lengths - running_mean).square().mean()
