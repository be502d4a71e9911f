"""Is anything taught? The two figures against their definitions, on cases where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from kd_plugin import gradient_ratio
from kd_plugin.diagnostics import Transfer
from kd_plugin.terms import AGKD, CGKD
from kd_plugin.terms.base import correlations
from kd_plugin.types import DistillBatch, Role


def rows(seed: int, n: int = 40, width: int = 6) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEXTS = rows(9, 5)


def transfer_of(pairs: dict[Role, tuple[Tensor, Tensor]], batch: int = 8, keep: int = 1000) -> Transfer:
    """All pairs (student, teacher) shown in batches, as a run would."""
    transfer = Transfer(keep)
    for role, (student, teacher) in pairs.items():
        for s, t in zip(student.split(batch), teacher.split(batch), strict=True):
            for name, loss in BOTH.items():
                student_rows, teacher_rows = (loss.compared(rows, TEXTS) for rows in (s, t))
                transfer.observe(name, DistillBatch(role, student_rows, teacher_rows, teacher_rows.flip(0), coin=True))
    return transfer


BOTH = nn.ModuleDict({"agkd": AGKD(), "cgkd": CGKD()})
WEIGHTS = {"agkd": 2.0, "cgkd": 0.5}


def test_a_student_that_says_what_the_teacher_says_explains_all() -> None:
    real, fake = rows(1), rows(2)
    shares = transfer_of({"real": (real, real), "fake": (fake, fake)}).explained(BOTH, WEIGHTS)
    assert shares == {"total": 1.0, "agkd": 1.0, "cgkd": 1.0}


def test_the_best_constant_explains_nothing_and_another_less() -> None:
    real, fake = rows(1), rows(2) + 3
    median = [teacher.median(0, keepdim=True).values.expand_as(teacher) for teacher in (real, fake)]
    agkd = nn.ModuleDict({"agkd": AGKD()})
    shares = transfer_of({"real": (median[0], real), "fake": (median[1], fake)}).explained(agkd, WEIGHTS)
    assert shares["agkd"] == pytest.approx(0, abs=1e-12)
    shares = transfer_of({"real": (median[0] + 1, real), "fake": (median[1], fake)}).explained(agkd, WEIGHTS)
    assert shares["agkd"] < -0.05


def test_telling_real_from_fake_alone_explains_nothing() -> None:
    """A discriminator separates the two anyway: that is no knowledge of the teacher's."""
    real, fake = rows(1), rows(2) + 100
    mean = [teacher.mean(0, keepdim=True).expand_as(teacher) for teacher in (real, fake)]
    shares = transfer_of({"real": (mean[0], real), "fake": (mean[1], fake)}).explained(BOTH, WEIGHTS)
    assert shares["agkd"] < 0.01


def test_the_shares_are_the_formula() -> None:
    pairs: dict[Role, tuple[Tensor, Tensor]] = {"real": (rows(1), rows(2)), "fake": (rows(3), rows(4))}
    shares = transfer_of(pairs).explained(BOTH, WEIGHTS)
    off, constant = {"agkd": 0.0, "cgkd": 0.0}, {"agkd": 0.0, "cgkd": 0.0}
    for student, teacher in pairs.values():
        for name, (s, t) in {
            "agkd": (student, teacher),
            "cgkd": (correlations(student, TEXTS), correlations(teacher, TEXTS)),
        }.items():
            off[name] += float((s - t).abs().mean())
            # The nearest constant in every column by brute force: in L1 it is one of the values themselves.
            columns = [min(float((column - value).abs().mean()) for value in column) for column in t.T]
            constant[name] += sum(columns) / len(columns)
    for name in BOTH:
        assert shares[name] == pytest.approx(1 - off[name] / constant[name], rel=1e-9)
    total = [sum(WEIGHTS[name] * part[name] for name in BOTH) for part in (off, constant)]
    assert shares["total"] == pytest.approx(1 - total[0] / total[1], rel=1e-9)


def test_only_the_latest_rows_count() -> None:
    teacher, student = rows(1), rows(2)
    student[-16:] = teacher[-16:]
    transfer = transfer_of({"real": (student, teacher), "fake": (student, teacher)}, keep=16)
    assert transfer.explained(BOTH, WEIGHTS)["total"] == 1.0


def test_nothing_seen_and_nothing_to_explain() -> None:
    assert Transfer().explained(BOTH, WEIGHTS) == {}
    same = torch.ones(8, 6, dtype=torch.float64)
    shares = transfer_of({"real": (rows(1, 8), same), "fake": (rows(2, 8), same)}).explained(BOTH, WEIGHTS)
    assert math.isnan(shares["total"])


def test_a_step_is_observed(attach, discriminator, images, run) -> None:
    kd = attach()
    assert kd.explained() == {}
    run(kd, discriminator, images(1), images(2))
    assert set(kd.explained()) == {"total", "agkd", "cgkd"}
    assert all(share < 1 for share in kd.explained().values())


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_ratio_is_that_of_the_gradients_at_the_feature(weight, attach, discriminator, images, run) -> None:
    """Against the gradients at b4.fc's bias, which with one image a role are those at the feature."""
    kd = attach(losses={"agkd": weight}, p=0.0)
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
    kd = attach(losses={})
    adversarial = discriminator(images(1)).mean()
    assert float(gradient_ratio(run(kd, discriminator, images(1), images(2)), adversarial)) == 0
