"""The distances against double loops, in float64: values, gradients, and the constant that nothing beats."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from kd_plugin import KDConfig, KDError
from kd_plugin.config.schema import from_dict
from kd_plugin.distances import DISTANCES
from kd_plugin.functional import correlations
from kd_plugin.terms import AGKD, CGKD
from tests.plugin.test_terms import batch, draw, finite_differences, make, value_of


def loop(name: str, a: Tensor, b: Tensor) -> float:
    rows = [[float(b[i, j]) - float(a[i, j]) for j in range(a.shape[1])] for i in range(len(a))]
    flat = [value for row in rows for value in row]
    return {
        "l1": sum(map(abs, flat)) / len(flat),
        "l2": sum(math.sqrt(sum(value**2 for value in row)) for row in rows) / len(rows),
        "mse": sum(value**2 for value in flat) / len(flat),
        "sse": sum(value**2 for value in flat),
    }[name]


@pytest.mark.parametrize("name", list(DISTANCES))
def test_values_and_gradients(name):
    a, b = draw(1, 4, 3), draw(2, 4, 3)
    between = DISTANCES[name].between
    assert float(between(a, b)) == pytest.approx(loop(name, a, b), rel=1e-12)
    at = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(between(at, b), at)
    torch.testing.assert_close(gradient, finite_differences(lambda x: loop(name, x, b), a), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_no_constant_is_nearer_than_the_best(name):
    target = draw(3, 15, 4).exp()  # skewed: mean, median and geometric median lie apart
    distance = DISTANCES[name]
    best = distance.best_constant(target)
    assert best.shape == (1, 4)
    least = float(distance.between(best.expand_as(target), target))
    for seed in range(200):
        other = best + 0.05 * draw(seed, 1, 4)
        assert float(distance.between(other.expand_as(target), target)) >= least - 1e-6
    constants = [DISTANCES[other].best_constant(target) for other in ("l1", "l2", "mse")]
    assert all((a - b).abs().max() > 1e-2 for a, b in itertools.pairwise(constants))


def test_a_row_that_is_met_exactly_has_a_gradient_of_zero():
    target = draw(1, 3, 2)
    at = target.clone()
    at[1] += 1
    at.requires_grad_()
    (gradient,) = torch.autograd.grad(DISTANCES["l2"].between(at, target), at)
    assert gradient.isfinite().all()
    assert gradient[0].abs().sum() == 0
    assert gradient[1].abs().sum() > 0


@pytest.mark.parametrize("name", list(DISTANCES))
def test_the_terms_are_made_of_them(name):
    b = batch(coin=True)
    student, agkd = b.student.detach(), value_of(make(AGKD, distance=name), b)
    assert float(agkd.detach()) == pytest.approx(loop(name, student, b.teacher) + loop(name, student, b.teacher_other))
    expected = loop(name, correlations(student, b.texts), correlations(b.teacher, b.texts))
    assert float(value_of(make(CGKD, distance=name), b).detach()) == pytest.approx(expected)


def test_each_term_gets_its_own(attach, discriminator, images, run):
    kd = attach(terms={"agkd": 1.0, "cgkd": 1.0}, distance="l2", cgkd_distance="sse")
    assert kd.terms["agkd"].distance is DISTANCES["l2"]
    assert kd.terms["cgkd"].distance is DISTANCES["sse"]
    distilled = run(kd, discriminator, images(1), images(2))
    assert distilled.total.isfinite()
    assert set(kd.explained()) == {"total", "agkd", "cgkd"}


@pytest.mark.parametrize("option", ["distance", "cgkd_distance"])
def test_unknown_ones_are_named(option):
    with pytest.raises(KDError, match=f"{option}='l3' is unknown; choose one of l1, l2, mse, sse"):
        from_dict(KDConfig, {option: "l3"})
