"""The drifting field: every generated image is drawn to nearby real ones and pushed away from other generated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kd_plugin.functional import SHORTEST_ROW, spread
from kd_plugin.pairwise import pairwise

__all__ = ["drift", "drift_loss"]

WIDTHS = (0.02, 0.05, 0.2)  # Deng et al.'s temperatures: of the weights, in mean distances among the real images


def drift_loss(fake: Tensor, real: Tensor) -> Tensor:
    """The mean squared distance to a target without gradient: where the field moves each row. -gradient is the field.

    The fields of several widths, each divided by its root mean square, are summed. So the value says little (it is
    that of the normalised field, and does not fall to 0); the gradient says where to go.

    Source: Deng et al., "Generative Modeling via Drifting" (arXiv 2602.04770). Differs in: beside a GAN; only the
    generated images of the step push apart; distances are relative to those among the real images, for each cell.

    Args:
        fake: [N, E] or [K, N, E], N at least 2; of K distributions, the loss is the mean.
        real: [M, E] or [K, M, E], M at least 2.
    """
    root = math.sqrt(fake.shape[-1])
    scale = spread(real) / root  # divided by it, real rows are as far apart as the root of E
    at = fake / scale
    with torch.no_grad():
        fields = drift(at, real / scale, [share * root for share in WIDTHS])
        target = at + sum(field / field.square().mean().sqrt().clamp_min(SHORTEST_ROW) for field in fields)
    return (at - target).square().mean()


def drift(fake: Tensor, real: Tensor, widths: Sequence[float]) -> list[Tensor]:
    """The field of each width at the generated rows, [..., N, E]: towards real ones, away from other generated ones.

    Every pair weighs exp(-|x - y| / width), divided by the geometric mean of its row's and its column's sum. The
    attraction of each row is multiplied by the sum of its repulsion's weights, and the other way round, so that they
    balance: where both sets are distributed alike, the field is 0.
    """
    others = pairwise(fake, fake)
    others.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)  # a row does not push itself
    distances = torch.cat([pairwise(fake, real), others], dim=-1)  # [..., N, M + N]
    return [_field(fake, real, -distances / width) for width in widths]


def _field(fake: Tensor, real: Tensor, logits: Tensor) -> Tensor:
    weights = (logits.softmax(dim=-1) * logits.softmax(dim=-2)).sqrt()
    to_real, to_fake = torch.split(weights, [real.shape[-2], fake.shape[-2]], dim=-1)
    attraction = to_real * to_fake.sum(dim=-1, keepdim=True)
    repulsion = to_fake * to_real.sum(dim=-1, keepdim=True)
    return attraction @ real - repulsion @ fake
