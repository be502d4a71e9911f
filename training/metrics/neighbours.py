"""Metrics from nearest neighbours among features: fidelity, variety, copying.

Distances are Euclidean and computed in float64, in blocks, so that memory does not grow with the product of the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Copying",
    "Nearest",
    "copying",
    "density_coverage",
    "effective_number",
    "intra_cluster_distance",
    "mean_distance",
    "nearest",
    "nearest_others",
    "precision_recall",
]

_BLOCK_BYTES = 1 << 28  # of one block of distances


@dataclass(frozen=True)
class Nearest:
    """For each query [N]: its distance to the nearest of the candidates, and which one that is."""

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, candidates: Tensor) -> Nearest:
    """
    Args:
        queries: [N, F].
        candidates: [M, F], M at least 1.
    """
    minima = [block.min(1) for _, block in _blocks(queries, candidates)]
    return Nearest(torch.cat([each.values for each in minima]), torch.cat([each.indices for each in minima]))


def nearest_others(points: Tensor, k: int = 1, same: int | None = None) -> Tensor:
    """[N] distances of each of [N, F] to its k-th nearest among the others (the copies of a point are others).

    Args:
        points: [N, F].
        k: which neighbour.
        same: points whose numbers differ by a multiple of this are no others: an image and its mirror image.
    """
    radii = []
    for first, block in _blocks(points, points):
        rows = torch.arange(len(block), device=block.device)
        for other in range(0, len(points), same or len(points)):
            block[rows, (first + rows + other) % len(points)] = torch.inf
        radii.append(block.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision: the share of fakes within the k-th-neighbour radius of some real; recall: the other way round.

    Args:
        real, fake: features [N, F], more than k each.

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), section 2.
    """

    def inside(points: Tensor, centres: Tensor) -> float:
        radii = nearest_others(centres, k)
        return float(torch.cat([(block <= radii).any(1) for _, block in _blocks(points, centres)]).double().mean())

    return inside(fake, real), inside(real, fake)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density: in how many of the reals' k-th-neighbour balls a fake lies on average, over k (it may exceed 1).
    Coverage: the share of the reals whose ball holds a fake.

    Args:
        real, fake: features [N, F]; more than k reals.

    Source: Naeem et al. 2020 (arXiv 2002.09797), section 3.
    """
    radii = nearest_others(real, k)
    held = torch.zeros(len(real), dtype=torch.int64, device=real.device)
    for _, block in _blocks(fake, real):
        held += (block < radii).sum(0)
    return float(held.sum()) / (k * len(fake)), float((held > 0).double().mean())


@dataclass(frozen=True)
class Copying:
    """Whether generated images are nearer to the training images than unseen images are.

    Attributes:
        auc: the chance that a fake is nearer than such an image; .5: no copying, 1: nothing but copies. Below .5 the
            fakes are farther away, as poor images are.
        share: of the fakes that are nearer than `quantile` of such images are; `quantile`: no copying.
    """

    auc: float
    share: float


def copying(fake: Tensor, unseen: Tensor, quantile: float = 0.05) -> Copying:
    """
    Args:
        fake: [N] distances of generated images to their nearest training image.
        unseen: [M] those of images that were not trained on.

    Source: the rank test of Meehan et al. 2020 (arXiv 2004.05675), over the whole space instead of cells, which a
    hundred images cannot fill; the statistic as the probability it estimates instead of a z-score, which grows with N.
    """
    fake, unseen = fake.double(), unseen.double().sort().values
    above = len(unseen) - torch.searchsorted(unseen, fake, right=True)
    equal = torch.searchsorted(unseen, fake, right=True) - torch.searchsorted(unseen, fake)
    auc = float((above + 0.5 * equal).double().mean()) / len(unseen)
    return Copying(auc, float((fake < unseen.quantile(quantile)).double().mean()))


def intra_cluster_distance(points: Tensor, cluster: Tensor) -> float:
    """Mean distance of two points of one cluster, averaged over the clusters that have two; nan if none has.

    Args:
        points: [N, F].
        cluster: [N], which cluster each belongs to.

    Source: Ojha et al. 2021 (arXiv 2104.06820), section 4, who take LPIPS for the distance.
    """
    means = [mean_distance(points[cluster == name]) for name in cluster.unique() if (cluster == name).sum() > 1]
    return sum(means) / len(means) if means else float("nan")


def mean_distance(points: Tensor) -> float:
    """Mean distance of two different ones of [N, F] points, N at least 2."""
    total = sum(float(block.sum()) for _, block in _blocks(points, points))
    return total / (len(points) * (len(points) - 1))


def effective_number(counts: Tensor) -> float:
    """exp(entropy) of [K] counts: K if all are equal, 1 if all but one are 0."""
    share = counts[counts > 0].double() / counts.sum()
    return float((-(share * share.log()).sum()).exp())


def _blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(index of the first row, distances [B, M]) for blocks of rows.

    |x|² + |y|² - 2xy cancels: centred first, then the rounding is about 1e-8 of the features' spread. Distances of
    that order are 0, so that copies are copies.
    """
    centre = columns.double().mean(0)
    x, y = rows.double() - centre, columns.double() - centre
    y_norms = y.square().sum(1)
    size = max(_BLOCK_BYTES // (8 * len(columns)), 1)
    for first in range(0, len(x), size):
        part = x[first : first + size]
        norms = part.square().sum(1, keepdim=True) + y_norms
        squares = torch.addmm(norms, part, y.T, alpha=-2)
        yield first, squares.masked_fill_(squares < norms * 1e-13, 0).sqrt_()
