"""Is anything taught? The two figures against their definitions, on cases with a known answer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kd_plugin import gradient_ratio
from kd_plugin.diagnostics import ExplainedMeter, fraction_explained
from kd_plugin.distances import DISTANCES
from kd_plugin.functional import correlations
from kd_plugin.types import Pairs, Role


def rows(seed: int, n: int = 40, width: int = 6) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def meter_of(pairs: dict[Role, tuple[Tensor, Tensor]], batch: int = 8, keep: int = 1000) -> ExplainedMeter:
    """All pairs (student, teacher) shown in batches, as in a run."""
    meter = ExplainedMeter(DISTANCES["l1"], keep)
    for role, (student, teacher) in pairs.items():
        for s, t in zip(student.split(batch), teacher.split(batch), strict=True):
            meter.observe(role, Pairs(s, t))
    return meter


def explained(meter: ExplainedMeter) -> float:
    errors = meter.errors()
    assert errors is not None
    return fraction_explained(*errors)


def test_a_student_that_says_what_the_teacher_says_explains_all() -> None:
    real, fake = rows(1), rows(2)
    assert explained(meter_of({"real": (real, real), "fake": (fake, fake)})) == 1.0


def test_the_best_constant_explains_nothing_and_another_less() -> None:
    real, fake = rows(1), rows(2) + 3
    median = [teacher.median(0, keepdim=True).values.expand_as(teacher) for teacher in (real, fake)]
    assert explained(meter_of({"real": (median[0], real), "fake": (median[1], fake)})) == pytest.approx(0, abs=1e-12)
    assert explained(meter_of({"real": (median[0] + 1, real), "fake": (median[1], fake)})) < -0.05


def test_telling_real_from_fake_alone_explains_nothing() -> None:
    """A discriminator separates the two anyway: that is no knowledge of the teacher's."""
    real, fake = rows(1), rows(2) + 100
    mean = [teacher.mean(0, keepdim=True).expand_as(teacher) for teacher in (real, fake)]
    assert explained(meter_of({"real": (mean[0], real), "fake": (mean[1], fake)})) < 0.01


def test_the_fraction_is_the_formula() -> None:
    pairs: dict[Role, tuple[Tensor, Tensor]] = {"real": (rows(1), rows(2)), "fake": (rows(3), rows(4))}
    student_error = constant_error = 0.0
    for student, teacher in pairs.values():
        student_error += float((student - teacher).abs().mean())
        # The nearest constant in every column by brute force: in L1 it is one of the values themselves.
        columns = [min(float((column - value).abs().mean()) for value in column) for column in teacher.T]
        constant_error += sum(columns) / len(columns)
    assert explained(meter_of(pairs)) == pytest.approx(1 - student_error / constant_error, rel=1e-9)


def test_only_the_latest_rows_count() -> None:
    teacher, student = rows(1), rows(2)
    student[-16:] = teacher[-16:]
    assert explained(meter_of({"real": (student, teacher), "fake": (student, teacher)}, keep=16)) == 1.0


def test_nothing_observed_and_nothing_to_explain() -> None:
    assert ExplainedMeter(DISTANCES["l1"]).errors() is None
    assert meter_of({"real": (rows(1), rows(2))}).errors() is None  # of one role alone
    same = torch.ones(8, 6, dtype=torch.float64)
    assert math.isnan(explained(meter_of({"real": (rows(1, 8), same), "fake": (rows(2, 8), same)})))


def test_the_total_weighs_the_terms(attach, discriminator, teacher, images, run, prompts) -> None:
    """One step, from the definition: errors of the student and of the best constant, weighted and summed."""
    kd = attach(terms={"agkd": 2.0, "cgkd": 0.5}, p=0)
    run(kd, discriminator, images(1, 9), images(2, 9))
    texts = teacher.embed_texts(prompts)
    errors = {"agkd": [0.0, 0.0], "cgkd": [0.0, 0.0]}
    for seed in (1, 2):
        shown = images(seed, 9)
        d = discriminator.b4["fc"](discriminator.b4["conv"](shown).tanh().mean(dim=(2, 3))).detach()
        i = teacher.embed_images(shown).detach()
        for name, (s, t) in {"agkd": (d, i), "cgkd": (correlations(d, texts), correlations(i, texts))}.items():
            errors[name][0] += float((s - t).abs().mean())
            errors[name][1] += float((t.median(0, keepdim=True).values - t).abs().mean())
    found = kd.explained()
    for name, (student, constant) in errors.items():
        assert found[name] == pytest.approx(1 - student / constant, rel=1e-4)
    total = [2.0 * a + 0.5 * c for a, c in zip(errors["agkd"], errors["cgkd"], strict=True)]
    assert found["total"] == pytest.approx(1 - total[0] / total[1], rel=1e-4)


def test_a_step_is_observed(attach, discriminator, images, run) -> None:
    kd = attach()
    assert kd.explained() == {}
    run(kd, discriminator, images(1), images(2))
    assert set(kd.explained()) == {"total", "agkd", "cgkd"}
    assert all(share < 1 for share in kd.explained().values())


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_ratio_is_that_of_the_gradients_at_the_feature(weight, attach, discriminator, images, run) -> None:
    """Against the gradients at b4.fc's bias, which with one image a role are those at the feature."""
    kd = attach(terms={"agkd": weight}, p=0.0)
    with kd.capture("real"):
        d_real = discriminator(images(1, n=1))
    with kd.capture("fake"):
        d_fake = discriminator(images(2, n=1))
    adversarial, distilled = -d_real.mean() + 2 * d_fake.mean(), kd()

    bias = discriminator.b4["fc"].bias

    def pull(loss: Tensor) -> float:
        """Norm over both images; each image's own part comes from a pass where the other one is held still."""
        squares = 0.0
        for output in distilled.outputs:
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            squares += float(gradient.square().sum())
        return math.sqrt(squares)

    ratio = gradient_ratio(distilled, adversarial)
    assert float(ratio) == pytest.approx(pull(distilled.total) / pull(adversarial), rel=1e-5)
    real_only = torch.autograd.grad(-d_real.mean(), bias, retain_graph=True)[0]
    fake_only = torch.autograd.grad(2 * d_fake.mean(), bias, retain_graph=True)[0]
    assert pull(adversarial) == pytest.approx(float(torch.cat([real_only, fake_only]).norm()), rel=1e-5)
    (distilled.total + adversarial).backward()  # neither graph was freed


def test_the_ratio_is_0_without_distillation(attach, discriminator, images, run) -> None:
    kd = attach(terms={})
    adversarial = discriminator(images(1)).mean()
    assert float(gradient_ratio(run(kd, discriminator, images(1), images(2)), adversarial)) == 0
