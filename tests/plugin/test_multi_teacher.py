"""Several teachers: the sum of what each would give alone, under one roof."""

from __future__ import annotations

import pytest
import torch

import kd_plugin
from kd_plugin import gradient_ratio


@pytest.fixture
def others(make_teacher):
    """One of another width that reads no text."""
    blind = make_teacher(9, vocabulary=())
    blind.name = "blind"
    return blind


def test_it_is_the_weighted_sum(attach, discriminator, teacher, others, both):
    kd = attach(teacher=[(1.0, teacher), (0.5, others)], p=1, head="linear")
    alone = [attach(teacher=teacher, p=1, head="linear"), attach(teacher=others, p=1, head="linear", seed=1, cgkd=0.0)]
    both(kd, discriminator)
    distilled = kd()
    parts = []
    for one in alone:
        both(one, discriminator)
        parts.append(one())
    torch.testing.assert_close(distilled.total, parts[0].total + 0.5 * parts[1].total)
    torch.testing.assert_close(distilled.terms["agkd"], parts[0].terms["agkd"] + 0.5 * parts[1].terms["agkd"])
    assert set(distilled.terms) == {"agkd", "agkd/fake", "agkd/blind", "cgkd", "cgkd/fake"}  # blind has no texts
    distilled.total.backward()
    assert all(parameter.grad is not None for parameter in kd.parameters())
    shares = kd.explained()
    assert set(shares) == {"total", "agkd/fake", "cgkd/fake", "agkd/blind"}
    expected = (alone[0].explained()["total"] + 0.5 * alone[1].explained()["total"]) / 1.5
    assert shares["total"] == pytest.approx(expected, rel=1e-5)


def test_the_ratio_is_that_of_all(attach, discriminator, teacher, others, both):
    """Against the gradient at the layer's own output, by a hook of the test's."""
    seen = []
    discriminator.b4["fc"].register_forward_hook(lambda module, args, output: seen.append(output))
    kd = attach(teacher=[(1.0, teacher), (3.0, others)], terms={"agkd": 1.0}, p=0)
    adversarial = both(kd, discriminator)
    distilled = kd()
    pulls = []
    for loss in (distilled.total, adversarial):
        gradients = torch.autograd.grad(loss, seen, retain_graph=True)
        pulls.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
    assert float(gradient_ratio(distilled, adversarial)) == pytest.approx(pulls[0] / pulls[1], rel=1e-5)
    assert pulls[0] > 0


def test_each_is_balanced(attach, discriminator, teacher, others, both):
    kd = attach(teacher=[(1.0, teacher), (1.0, others)], terms={"agkd": 1.0}, p=0, balance=0.3)
    adversarial = both(kd, discriminator)
    for distiller in kd.members:
        distilled = distiller(adversarial)
        assert float(gradient_ratio(distilled, adversarial)) == pytest.approx(0.3, rel=1e-4)


def test_the_state_goes_on(attach, discriminator, teacher, others, both):
    first, second = (attach(teacher=[(1.0, teacher), (1.0, others)], norm="standardise") for _ in range(2))
    for step in range(3):
        both(first, discriminator, step)
        first()
    second.load_state_dict(first.state_dict())
    totals = []
    for kd in (first, second):
        both(kd, discriminator, 9)
        totals.append(float(kd().total.detach()))
    assert totals[0] == totals[1]


def test_the_generators_term_and_held_out_images(attach, discriminator, teacher, others, images):
    kd = attach(teacher=[(1.0, teacher), (1.0, others)], terms={"agkd": 1.0, "diversity": 1.0})
    fake = images(2).requires_grad_()
    kd.for_generator(fake).total.backward()
    assert fake.grad is not None
    assert set(kd.held_out(images(3), 2)(discriminator)) == {"total", "agkd/fake", "agkd/blind"}


def test_nobody_reads_texts(attach, discriminator, make_teacher):
    blind = [(1.0, make_teacher(vocabulary=())) for _ in range(2)]
    assert [info.name for info in attach(teacher=blind).terms_info] == ["agkd"]
    one_reads = [blind[0], (1.0, make_teacher())]
    with pytest.warns(UserWarning, match="cgkd is off: it compares images with texts"):
        kd = kd_plugin.attach(discriminator, teacher=one_reads)
    assert {info.name for info in kd.terms_info} == {"agkd", "critic", "match"}
