"""Each normalisation against its formula, and terms in them against loops written from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_plugin import normalization
from kd_plugin.distances import DISTANCES
from kd_plugin.functional import correlations
from kd_plugin.normalization import FLOOR, NORMS, Normalization, RunningMoments
from kd_plugin.types import Pairs

E, P = 5, 4


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def embeddings(seed: int, n: int = 300) -> Tensor:
    """Correlated, of different sizes, far from zero: as a teacher's are."""
    return draw(seed, n, E) @ draw(99, E, E) + 7


def observed(norm: str, centre: bool = False, seen: Tensor | None = None) -> Normalization:
    made = Normalization(norm, centre, E).double()
    for part in (embeddings(1) if seen is None else seen).split(30):
        made.observe(part)
    return made


def distance(pairs: Pairs, texts: Tensor | None = None) -> float:
    """As AGKD has it, or, with texts, CGKD."""
    rows = pairs if texts is None else Pairs(*(correlations(side, texts) for side in (pairs.student, pairs.teacher)))
    return float(DISTANCES["l1"].between(rows.student, rows.teacher))


@pytest.mark.parametrize("full", [False, True])
def test_moments_are_those_of_all_rows(full):
    rows = embeddings(1) * 1e-3 + 1e4  # a mean that dwarfs the spread
    moments = RunningMoments(E, full).double()
    for part in rows.split(7):
        moments.update(part)
    covariance = np.cov(rows.numpy().T, bias=True)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.second, covariance if full else np.diag(covariance), rtol=1e-4, atol=1e-9)


def test_processes_with_unequal_batches_have_the_moments_of_all(monkeypatch):
    """As where the last batch of an epoch is short: each takes in its own rows, and the sums of both."""
    parts = embeddings(1, 8).split([5, 3])
    travelling = []
    monkeypatch.setattr(normalization, "summed", lambda sums: travelling.append(sums) or sums)
    for part in parts:
        RunningMoments(E, full=False).double().update(part)
    monkeypatch.setattr(normalization, "summed", lambda sums: sum(travelling))
    for part in parts:
        moments = RunningMoments(E, full=False).double()
        moments.update(part)
        np.testing.assert_allclose(moments.mean, embeddings(1, 8).mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.second, embeddings(1, 8).var(0, correction=0), rtol=1e-9)
        assert float(moments.count) == 8


def test_crossed_pairs_meet_in_the_space_of_their_own(attach, discriminator, images, run, teacher):
    """With the coin: each image's feature, its own standardised embedding, and that of the other role's image."""
    options = {"terms": {"agkd": 1.0}, "norm": "standardise"}
    runs = [run(attach(p=p, **options), discriminator, images(1), images(2)) for p in (0, 1)]
    own, both = (float(distilled.total.detach()) for distilled in runs)
    rows = [discriminator.b4["fc"](discriminator.b4["conv"](images(s)).tanh().mean(dim=(2, 3))) for s in (1, 2)]
    answers = torch.cat([teacher.embed_images(images(s)) for s in (1, 2)]).double()
    variances = answers.var(0, correction=0)
    targets = ((answers - answers.mean(0)) / (variances + FLOOR * variances.mean()).sqrt()).split(4)
    expected = [
        sum(float((row - target).abs().mean()) for row, target in zip(rows, asked, strict=True))
        for asked in (targets, targets[::-1])
    ]
    assert own == pytest.approx(expected[0], rel=1e-4)
    assert both == pytest.approx(sum(expected), rel=1e-4)


def test_moments_forget():
    moments = RunningMoments(1, full=False).double()
    for _ in range(30):
        moments.update(torch.zeros(1000, 1))
    for _ in range(100):
        moments.update(torch.ones(1000, 1, dtype=torch.float64))
    assert float(moments.mean) == pytest.approx(1 - 0.9**100, rel=1e-6)


def test_standardised_targets_are_the_formula():
    teacher, all_rows = embeddings(1)[:8], embeddings(1)
    mean, variance = all_rows.mean(0), all_rows.var(0, correction=0)
    found = observed("standardise").compared(Pairs(draw(2, 8, E), teacher))
    for i in range(8):
        for j in range(E):
            expected = (teacher[i, j] - mean[j]) / math.sqrt(variance[j] + FLOOR * variance.mean())
            assert float(found.teacher[i, j]) == pytest.approx(float(expected), rel=1e-9)
    torch.testing.assert_close(found.student, draw(2, 8, E))  # the student predicts the standardised row


def test_whitened_targets_are_uncorrelated():
    rows = embeddings(1, 3000)
    white = observed("whiten", seen=rows).compared(Pairs(rows, rows)).teacher
    variances = np.linalg.eigvalsh(np.cov(rows.numpy().T, bias=True))
    found = np.linalg.eigvalsh(np.cov(white.numpy().T, bias=True))
    expected = np.sort(variances / (variances + FLOOR * variances.mean()))
    np.testing.assert_allclose(found, expected, rtol=0.02)  # the last axes are up to 16 updates old


def test_unit_rows_on_both_sides():
    found = observed("unit").compared(Pairs(draw(2, 8, E) * 50, embeddings(3, 8)))
    for rows in (found.student, found.teacher):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_the_perfect_student_costs_nothing_in_any_observed(norm, centre):
    """One answer of the student satisfies both kinds of term: it is consistent."""
    made, teacher, texts = observed(norm, centre), embeddings(3, 8), draw(4, P, E)
    target = made.compared(Pairs(teacher, teacher)).teacher
    student = target if norm != "unit" else teacher
    assert distance(made.compared(Pairs(student, teacher))) == pytest.approx(0, abs=1e-9)
    assert distance(made.beside_texts(Pairs(student, teacher)), texts) == pytest.approx(0, abs=1e-9)


def test_centred_correlations_are_the_formula():
    """Against a double loop: rows are (I - mean) T', divided by their length."""
    made, teacher, student, texts = observed("none", True), embeddings(3, 6), embeddings(5, 6), draw(4, P, E)
    mean = embeddings(1).mean(0)
    expected = 0.0
    for i in range(6):
        rows = []
        for side in (teacher, student):
            row = [sum(float((side[i, e] - mean[e]) * texts[p, e]) for e in range(E)) for p in range(P)]
            length = math.sqrt(sum(value * value for value in row))
            rows.append([value / length for value in row])
        expected += sum(abs(a - b) for a, b in zip(*rows, strict=True)) / (6 * P)
    assert distance(made.beside_texts(Pairs(student, teacher)), texts) == pytest.approx(expected, rel=1e-9)


def test_centring_takes_the_constant_out_of_correlations():
    texts, teacher = draw(4, P, E), embeddings(3, 200)

    def constant_part(made: Normalization) -> float:
        rows = correlations(made.beside_texts(Pairs(teacher, teacher)).teacher, texts)
        return float(rows.mean(0).square().sum() / rows.square().sum(1).mean())

    assert constant_part(observed("none")) > 0.5
    assert constant_part(observed("none", True)) < 0.1


def test_statistics_are_kept_in_the_state(attach, discriminator, images, run):
    first, second = (attach(norm="whiten", centre=True) for _ in range(2))
    run(first, discriminator, images(1), images(2))
    second.load_state_dict(first.state_dict())
    totals = [run(kd, discriminator, images(3), images(4)).total.detach() for kd in (first, second)]
    assert torch.equal(*totals)


def test_without_statistics_the_state_has_none(attach):
    assert not [name for name in attach(norm="unit").state_dict() if name.startswith("normalization.")]


def test_gradient_goes_to_the_student_alone(attach, discriminator, images, run):
    for norm in NORMS:
        kd = attach(norm=norm, centre=True, p=1)
        run(kd, discriminator, images(1), images(2)).total.backward()
        assert discriminator.b4["fc"].weight.grad.abs().sum() > 0
        assert all(buffer.grad is None for buffer in kd.normalization.buffers())
