"""Precision, recall, density, coverage, copying: against loops written from the definitions, and sane at the ends."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import training.metrics.neighbours as neighbours
from training.metrics.neighbours import (
    copying,
    density_coverage,
    effective_number,
    intra_cluster_distance,
    mean_distance,
    nearest,
    nearest_others,
    precision_recall,
)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def apart(x: Tensor, y: Tensor) -> float:
    return math.dist(x.tolist(), y.tolist())


def radius(points: Tensor, n: int, k: int) -> float:
    return sorted(apart(points[n], other) for m, other in enumerate(points) if m != n)[k - 1]


@pytest.fixture(params=[8 * 30, 1 << 28], ids=["row by row", "at once"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("block_bytes")
def test_nearest_by_brute_force() -> None:
    queries, candidates = normal(0, 13, 4), normal(1, 30, 4)
    found = nearest(queries, candidates)
    for n, query in enumerate(queries):
        distances = [apart(query, candidate) for candidate in candidates]
        assert int(found.index[n]) == distances.index(min(distances))
        assert float(found.distance[n]) == pytest.approx(min(distances), rel=1e-12)
    radii = nearest_others(candidates, 3)
    assert radii.tolist() == pytest.approx([radius(candidates, n, 3) for n in range(30)], rel=1e-12)


@pytest.mark.usefixtures("block_bytes")
def test_precision_recall_by_brute_force() -> None:
    real, fake = normal(0, 30, 3), normal(1, 25, 3) * 0.6 + 0.5

    def inside(points: Tensor, centres: Tensor) -> float:
        hits = [any(apart(p, c) <= radius(centres, n, 3) for n, c in enumerate(centres)) for p in points]
        return sum(hits) / len(hits)

    expected = (inside(fake, real), inside(real, fake))
    assert precision_recall(real, fake) == pytest.approx(expected, abs=1e-12)
    assert expected[0] > expected[1]  # the fakes huddle: real, but not varied


@pytest.mark.usefixtures("block_bytes")
def test_density_coverage_by_brute_force() -> None:
    real, fake = normal(0, 30, 3), normal(1, 25, 3) * 0.6 + 0.5
    radii = [radius(real, n, 5) for n in range(30)]
    pairs = [[apart(f, r) < radii[n] for f in fake] for n, r in enumerate(real)]
    density = sum(map(sum, pairs)) / (5 * 25)
    coverage = sum(map(any, pairs)) / 30
    assert density_coverage(real, fake) == pytest.approx((density, coverage), abs=1e-12)


def test_the_ends_of_the_scales() -> None:
    real = normal(0, 40, 3)
    assert precision_recall(real, real.clone()) == (1.0, 1.0)
    assert density_coverage(real, real.clone())[1] == 1.0
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert density_coverage(real, real + 100) == (0.0, 0.0)
    one = real[:1].expand(40, 3)  # collapsed
    assert precision_recall(real, one) == (1.0, 1 / 40)
    assert density_coverage(real, one)[1] <= 6 / 40
    assert precision_recall(one, one) == (1.0, 1.0)  # identical images: no NaN


def test_copies_lie_at_distance_zero_however_far_from_the_origin() -> None:
    points = (normal(0, 50, 64) + 1000).float()
    assert nearest(points, points).distance.max() == 0
    assert nearest_others(points.repeat(2, 1)).max() == 0


def test_copying_by_brute_force() -> None:
    fake, unseen = normal(0, 40).abs().round(decimals=1), normal(1, 30).abs().round(decimals=1)  # with ties
    wins = [1.0 if f < u else 0.5 if f == u else 0.0 for f, u in itertools.product(fake, unseen)]
    found = copying(fake, unseen, quantile=0.2)
    assert found.auc == pytest.approx(sum(wins) / len(wins))
    assert found.share == pytest.approx(sum(float(f) < float(unseen.quantile(0.2)) for f in fake) / 40)


def test_copying_is_calibrated() -> None:
    train, unseen, fresh = normal(0, 200, 8), normal(1, 2000, 8), normal(2, 2000, 8)
    of_unseen = nearest(unseen, train).distance
    none = copying(nearest(fresh, train).distance, of_unseen)
    assert none.auc == pytest.approx(0.5, abs=0.03)
    assert none.share == pytest.approx(0.05, abs=0.02)
    half = torch.cat([fresh[:1000], train.repeat(5, 1) + 0.01 * normal(3, 1000, 8)])
    some = copying(nearest(half, train).distance, of_unseen)
    assert some.auc == pytest.approx(0.75, abs=0.03)
    assert some.share == pytest.approx(0.525, abs=0.02)
    assert copying(nearest(train, train).distance, of_unseen).auc == 1.0


def test_distances_within_clusters_by_brute_force() -> None:
    points, cluster = normal(0, 12, 3), torch.tensor([0, 0, 0, 0, 4, 4, 7, 4, 4, 4, 0, 9])
    means = []
    for name in (0, 4):
        members = points[cluster == name]
        means.append(sum(apart(x, y) for x, y in itertools.combinations(members, 2)) / math.comb(len(members), 2))
    assert intra_cluster_distance(points, cluster) == pytest.approx(sum(means) / 2)
    everything = [apart(x, y) for x, y in itertools.combinations(points, 2)]
    assert mean_distance(points) == pytest.approx(sum(everything) / len(everything))
    assert math.isnan(intra_cluster_distance(points, torch.arange(12)))


def test_effective_number() -> None:
    assert effective_number(torch.tensor([5, 5, 5, 0, 5])) == pytest.approx(4)
    assert effective_number(torch.tensor([0, 9])) == pytest.approx(1)


def test_points_of_one_image_are_no_others() -> None:
    points = normal(1, 5, 3)
    twins = torch.cat([points, points + 1e-3])
    torch.testing.assert_close(nearest_others(twins, same=5)[:5], nearest_others(points), atol=5e-3, rtol=0)
    assert float(nearest_others(twins).max()) < 0.01
