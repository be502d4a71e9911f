"""Each term against a double loop written from its formula, in float64: values and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd_plugin.errors import PromptError
from kd_plugin.functional import correlations, energy_distance, row_normalized
from kd_plugin.normalization import Normalization
from kd_plugin.terms import AGKD, CGKD, TERMS, ComparisonTerm, DiscriminatorStep, GeneratorStep, Needs, Term
from kd_plugin.types import Pairs

N, E, P = 3, 5, 4


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Given:
    """Embeddings of a step, before a term makes rows of them to compare."""

    student: Tensor
    teacher: Tensor
    teacher_other: Tensor
    texts: Tensor | None
    coin: bool


def batch(coin: bool = False, **changes: Tensor | None) -> Given:
    student = draw(1, N, E).requires_grad_()
    return replace(Given(student, draw(2, N, E), draw(3, N, E), draw(4, P, E), coin), **changes)


def make(term: type[Term], **options: object) -> Term:
    return term(term.Options(**options), E)


def value_of(term: ComparisonTerm, given: Given) -> Tensor:
    """For the images of one role."""
    student, teacher, other = (
        term.rows(part, given.texts) for part in (given.student, given.teacher, given.teacher_other)
    )
    return term.role_loss(Pairs(student, teacher), Pairs(student, other), given.coin)


def diversity(embeddings: Tensor, texts: Tensor) -> Tensor:
    return make(TERMS["diversity"]).generator_loss(GeneratorStep(embeddings, texts=texts))


def loop_l1(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return sum(abs(float(a[i, j]) - float(b[i, j])) for i in range(len(a)) for j in range(a.shape[1])) / a.numel()


def loop_correlations(embeddings: Tensor, texts: Tensor) -> list[list[float]]:
    rows = []
    for image in embeddings.tolist():
        row = [sum(x * y for x, y in zip(image, text, strict=True)) for text in texts.tolist()]
        length = math.sqrt(sum(value * value for value in row))
        rows.append([value / length for value in row])
    return rows


def brute_agkd(b: Given) -> float:
    own = loop_l1(b.teacher, b.student)
    return own + (loop_l1(b.teacher_other, b.student) if b.coin else 0.0)


def brute_cgkd(b: Given) -> float:
    teacher, student = loop_correlations(b.teacher, b.texts), loop_correlations(b.student, b.texts)
    return sum(abs(teacher[i][k] - student[i][k]) for i in range(N) for k in range(P)) / (N * P)


def brute_diversity(embeddings: Tensor, texts: Tensor) -> float:
    rows = loop_correlations(embeddings, texts)
    total = 0.0
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                lengths = math.hypot(*rows[i]) * math.hypot(*rows[j])
                total += sum(x * y for x, y in zip(rows[i], rows[j], strict=True)) / lengths
    return total / (len(rows) * (len(rows) - 1))


def finite_differences(function, at: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient of a scalar function by central differences, entry by entry."""
    gradient = torch.zeros_like(at)
    for index in range(at.numel()):
        shift = torch.zeros(at.numel(), dtype=at.dtype)
        shift[index] = step
        shift = shift.view_as(at)
        gradient.view(-1)[index] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("coin", [False, True])
@pytest.mark.parametrize(("loss", "brute"), [(make(AGKD), brute_agkd), (make(CGKD), brute_cgkd)])
def test_discriminator_terms_are_the_formula(loss, brute, coin):
    b = batch(coin)
    value = value_of(loss, b)
    assert value.shape == ()
    assert float(value.detach()) == pytest.approx(brute(replace(b, student=b.student.detach())), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, b.student)
    numeric = finite_differences(lambda student: brute(replace(b, student=student)), b.student.detach())
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_diversity_is_the_formula():
    embeddings, texts = draw(2, N, E).requires_grad_(), draw(4, P, E)
    value = diversity(embeddings, texts)
    assert float(value.detach()) == pytest.approx(brute_diversity(embeddings.detach(), texts), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, embeddings)
    numeric = finite_differences(lambda e: brute_diversity(e, texts), embeddings.detach())
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-8)


def brute_energy(fake: Tensor, real: Tensor) -> float:
    def apart(x: Tensor, y: Tensor) -> float:
        return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))

    def among(rows: Tensor) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(apart(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = sum(apart(f, r) for f in fake for r in real) / (len(fake) * len(real))
    return (2 * between - among(fake) - among(real)) / among(real)


def test_energy_distance_is_the_formula():
    fake, real = draw(1, 4, E).requires_grad_(), draw(2, 3, E)
    value = energy_distance(fake, real)
    assert float(value.detach()) == pytest.approx(brute_energy(fake.detach(), real), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, fake)
    numeric = finite_differences(lambda rows: brute_energy(rows, real), fake.detach())
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_distances_among_many_images_are_computed_fast_and_as_well(shift):
    images = torch.randn(3, 40, 64, generator=torch.Generator().manual_seed(1)) + shift
    shown_again = images[:, torch.randint(40, (144,), generator=torch.Generator().manual_seed(2))]
    fake = images[:, :16] * 0.5
    exact = energy_distance(fake.double(), shown_again.double().requires_grad_())
    torch.testing.assert_close(energy_distance(fake, shown_again), exact.float().detach(), rtol=1e-4, atol=1e-5)


def test_energy_distance_of_one_distribution_is_nothing():
    many = draw(5, 400, E)
    assert abs(float(energy_distance(many[:200], many[200:]))) < 0.02
    assert float(energy_distance(many[:200] + 1, many[200:])) > 0.2
    assert float(energy_distance(many[:200] * 0.3, many[200:])) > 0.1  # of less variety
    collapsed = many[:1].expand(8, E).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy_distance(collapsed, many), collapsed)
    assert gradient.isfinite().all()  # two images that are the same are no corner that breaks it


def test_diversity_extremes():
    texts, embeddings = torch.eye(4), torch.eye(4)
    assert float(diversity(embeddings, texts)) == 0.0  # nothing in common
    assert float(diversity(embeddings[:1].expand(4, 4), texts)) == 1.0  # a collapsed generator
    assert float(diversity(embeddings[:1], texts)) == 0.0  # a single image has no pair


def test_agkd_coin_adds_the_crossed_pairs():
    own, both = value_of(make(AGKD), batch(False)), value_of(make(AGKD), batch(True))
    assert float((both - own).detach()) == pytest.approx(loop_l1(draw(3, N, E), draw(1, N, E)))


def test_swapping_real_and_fake_shows():
    """Without the coin the other role's embeddings do not count; exchanged for one's own they change the value."""
    b = batch(False, student=draw(1, N, E))
    swapped = replace(b, teacher=b.teacher_other, teacher_other=b.teacher)
    assert float(value_of(make(AGKD), b)) == float(value_of(make(AGKD), replace(b, teacher_other=draw(9, N, E))))
    for loss in (make(AGKD), make(CGKD)):
        assert abs(float(value_of(loss, b) - value_of(loss, swapped))) > 1e-3


def test_swapping_teacher_and_student_shows():
    """|I - D| is symmetric in value, so it is the gradient that tells: it must go to the student alone."""
    b = batch(True)
    swapped = replace(b, student=b.teacher, teacher=b.student)
    assert (value_of(make(AGKD), b) - value_of(make(AGKD), swapped)).abs() > 1e-3  # through the crossed pairs
    for loss in (make(AGKD), make(CGKD)):
        assert torch.autograd.grad(value_of(loss, b), b.student)[0].abs().sum() > 0


def test_perfect_student_costs_nothing():
    b = batch(False)
    perfect = replace(b, student=b.teacher)
    assert float(value_of(make(AGKD), perfect)) == 0
    assert float(value_of(make(CGKD), perfect)) == 0


def test_cgkd_ignores_the_scale_of_a_row():
    b = batch()
    torch.testing.assert_close(value_of(make(CGKD), replace(b, student=b.student * 7)), value_of(make(CGKD), b))


@pytest.mark.parametrize("texts", [None, draw(4, 1, E)])
def test_cgkd_needs_two_prompts(texts):
    with pytest.raises(PromptError, match=r"prompts=: correlated distillation \(cgkd\) needs at least 2 prompts"):
        value_of(make(CGKD), batch(texts=texts))


def test_zero_rows_are_safe():
    rows = torch.zeros(2, 3, requires_grad=True)
    normalised = row_normalized(rows)
    assert torch.equal(normalised, torch.zeros(2, 3))
    normalised.sum().backward()
    assert rows.grad.isfinite().all()
    assert rows.grad.abs().max() <= 1


@pytest.mark.parametrize(("given_type", "result"), [(torch.float16, torch.float32), (torch.float64, torch.float64)])
def test_row_normalisation_does_not_overflow_in_half_precision(given_type, result):
    rows = torch.full((1, 4), 60000.0, dtype=given_type)
    normalised = row_normalized(rows)
    assert normalised.dtype == result
    torch.testing.assert_close(normalised, torch.full((1, 4), 0.5, dtype=result))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 6))
def test_rows_of_correlations_have_unit_length(seed, n, p):
    rows = correlations(draw(seed, n, E), draw(seed + 1, p, E))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(n, dtype=torch.float64))


def test_a_step_sums_both_roles():
    """What the distiller calls, against the terms of each role."""
    student, teacher, texts = draw(1, 2 * N, E), draw(2, 2 * N, E), draw(4, P, E)
    step = DiscriminatorStep(Pairs(student, teacher), N, texts, True, Normalization("none", False, E))
    for term in (make(AGKD), make(CGKD)):
        parts = [
            Given(student[mine], teacher[mine], teacher[other], texts, True)
            for mine, other in ((slice(0, N), slice(N, None)), (slice(N, None), slice(0, N)))
        ]
        expected = sum(float(value_of(term, part)) for part in parts)
        assert float(term.discriminator_loss(step)) == pytest.approx(expected, rel=1e-12)


def test_what_the_built_in_terms_declare():
    declared = {name: (TERMS[name].needs, make(TERMS[name]).sides) for name in TERMS}
    assert declared == {
        "agkd": (Needs(other_batch=True), ("D",)),
        "cgkd": (Needs(texts=True), ("D",)),
        "critic": (Needs(real_images=True), ("G",)),
        "diversity": (Needs(texts=True), ("G",)),
        "match": (Needs(real_images=True), ("G",)),
    }
    assert make(TERMS["match"], on="late").needs == Needs(real_images=True, stages=True)
    assert make(TERMS["diversity"], on="student").sides == ("D",)
