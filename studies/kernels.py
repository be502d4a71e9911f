"""Other distances between sets of features than the energy distance, and other statistics of a stage."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drift", "drift_loss", "laplace_discrepancy", "means_and_deviations"]

LAPLACE_WIDTHS = (0.25, 0.5, 1.0, 2.0)  # of kernels, in mean distances among the real images
DRIFT_WIDTHS = (0.02, 0.05, 0.2)  # Deng et al.'s temperatures


def laplace_discrepancy(fake: Tensor, real: Tensor) -> Tensor:
    """E k(f, f') + E k(r, r') - 2 E k(f, r), k the mean of exp(-|x - y| / width); pairs of different images.

    Args:
        fake, real: [K, N, C] and [K, M, C]; or [N, E] and [M, E].
    """
    spread = _mean_distance(real)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / spread
        return torch.stack([torch.exp(-distances / width) for width in LAPLACE_WIDTHS]).mean(dim=0)

    def among(rows: Tensor) -> Tensor:
        count = rows.shape[-2]
        values = kernel(rows, rows)
        return (values.sum(dim=(-2, -1)) - count) / (count * (count - 1))  # k(x, x) is 1

    return (among(fake) + among(real) - 2 * kernel(fake, real).mean(dim=(-2, -1))).mean()


def drift_loss(fake: Tensor, real: Tensor) -> Tensor:
    """The mean over images of |field|^2 / C, as a distance to a fixed target, so that -gradient points along the field.

    The field of each width is divided by its root mean square, and they are summed.

    Source: Deng et al., "Generative Modeling via Drifting" (arXiv 2602.04770). Differs in: only the generated images of
    the step push apart, and widths are in mean distances among the real images of each cell.

    Args:
        fake, real: [K, N, C] and [K, M, C]; or [N, E] and [M, E].
    """
    scale = _mean_distance(real) / fake.shape[-1] ** 0.5  # so that the mean distance is the root of C
    with torch.no_grad():
        at, to = fake.detach() / scale, real / scale
        fields = [drift(at, to, width * fake.shape[-1] ** 0.5) for width in DRIFT_WIDTHS]
        target = at + torch.stack([field / field.square().mean().sqrt().clamp_min(1e-12) for field in fields]).sum(0)
    return (fake / scale - target).square().mean()


def drift(fake: Tensor, real: Tensor, width: float) -> Tensor:
    """The field at the generated images: towards real ones, away from other generated ones; [..., N, C].

    Every pair weighs exp(-|x - y| / width), divided by the geometric mean of its row's and its column's sum. The
    attraction of each image is multiplied by the sum of its repulsion's weights, and the other way round, so that they
    balance: where both sets are distributed alike, the field is 0.
    """
    others = torch.cdist(fake, fake)
    others.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)  # an image does not push itself
    logits = -torch.cat([torch.cdist(fake, real), others], dim=-1) / width  # [..., N, M + N]
    weights = (logits.softmax(dim=-1) * logits.softmax(dim=-2)).sqrt()
    to_real, to_fake = weights.split([real.shape[-2], fake.shape[-2]], dim=-1)
    attraction = to_real * to_fake.sum(dim=-1, keepdim=True)
    repulsion = to_fake * to_real.sum(dim=-1, keepdim=True)
    return attraction @ real - repulsion @ fake


def means_and_deviations(maps: Tensor) -> Tensor:
    """Of 2x2 places: [N, C, 2g, 2g] -> [N, 2C, g, g]. A map of one place has no deviation: as it is."""
    if maps.shape[-1] < 2:
        return maps
    side = maps.shape[-1] // 2
    places = maps[..., : 2 * side, : 2 * side].unflatten(-1, (side, 2)).unflatten(-3, (side, 2))  # [N, C, g, 2, g, 2]
    variance = places.var(dim=(-3, -1), correction=0)
    return torch.cat([places.mean(dim=(-3, -1)), (variance + 1e-6).sqrt()], dim=1)


def _mean_distance(rows: Tensor) -> Tensor:
    """Among different rows of [..., M, C]: [..., 1, 1], without gradient."""
    count = rows.shape[-2]
    distances = torch.cdist(rows.detach(), rows.detach())
    return (distances.sum(dim=(-2, -1), keepdim=True) / (count * (count - 1))).clamp_min(1e-12)
