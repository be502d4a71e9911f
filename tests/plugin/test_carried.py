"""Distillation that the host's own backward passes carry gives the gradients of the joint form."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from kd_plugin import CaptureError
from tests.plugin.host_steps import gradients, joint

TERMS = {"agkd": 2.0, "cgkd": 3.0}


def separate(kd, d, real, fake, order=("fake", "real"), scale=1.0):
    """The same step of a host that calls backward for each role, as official StyleGAN code does."""
    d.zero_grad(), kd.zero_grad()
    for role in order:
        with kd.capture(role, loss_scale=scale):
            logits = d(real if role == "real" else fake)
        (softplus(-logits if role == "real" else logits).mean() * scale).backward()
    return [gradient / scale for gradient in gradients(d, kd)]


def equal(a, b):
    return all(torch.allclose(x, y, rtol=1e-5, atol=1e-7) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("order", [("fake", "real"), ("real", "fake")])
@pytest.mark.parametrize("layer", ["b4.fc", "b4.conv,b4.fc"])
def test_the_gradients_of_d_and_heads_are_those_of_the_joint_form(attach, discriminator, images, order, layer):
    one = attach(terms=TERMS, p=0, layer=layer, head="linear")
    other = attach(terms=TERMS, p=0, layer=layer, head="linear", carried=True)
    separate(other, discriminator, images(5), images(6), order)  # the first role of a run has no other one to meet
    expected = joint(one, discriminator, images(1), images(2))
    assert equal(separate(other, discriminator, images(1), images(2), order), expected)
    assert not equal(expected, joint(attach(terms={"agkd": 0.0}), discriminator, images(1), images(2))[: len(expected)])


def test_the_loss_scale_multiplies_them(attach, discriminator, images):
    kd = attach(terms=TERMS, p=0, head="linear", carried=True)
    separate(kd, discriminator, images(1), images(2))
    expected = separate(kd, discriminator, images(1), images(2))
    assert equal(separate(kd, discriminator, images(1), images(2), scale=1024.0), expected)


def test_several_calls_in_a_block(attach, discriminator, images):
    one, other = (attach(terms={"agkd": 1.0}, p=0, head="linear", carried=carried) for carried in (False, True))
    real, fake = images(1), images(2)
    separate(other, discriminator, real, fake)
    expected = joint(one, discriminator, real, fake)
    discriminator.zero_grad(), other.zero_grad()
    for role, batch in (("fake", fake), ("real", real)):
        with other.capture(role):
            logits = torch.cat([discriminator(part) for part in batch.split(2)])
        softplus(-logits if role == "real" else logits).mean().backward()
    assert equal(gradients(discriminator, other), expected)


def test_crossed_pairs_meet_the_latest_images_of_the_other_role(attach, discriminator, teacher, images):
    kd = attach(terms={"agkd": 1.0}, p=1, distance="mse", carried=True)
    separate(kd, discriminator, images(1), images(2))
    separate(kd, discriminator, images(3), images(4))
    features = {}
    for role, seed in (("fake", 4), ("real", 3)):
        features[role] = discriminator.b4["fc"](discriminator.b4["conv"](images(seed)).tanh().mean(dim=(2, 3)))
    meets = {"fake": (4, 1), "real": (3, 4)}  # the fakes come first: they meet the reals of the step before
    loss = sum(
        (features[role] - teacher.embed_images(images(seed))).square().mean() for role in meets for seed in meets[role]
    )
    loss = loss + softplus(-discriminator(images(3))).mean() + softplus(discriminator(images(4))).mean()
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    assert equal([p.grad for p in discriminator.parameters()], expected)


def test_balance_measures_at_every_step_what_the_joint_form_measures(attach, discriminator, images):
    one, other = (attach(terms=TERMS, p=0, balance=0.5, carried=carried) for carried in (False, True))
    separate(other, discriminator, images(5), images(6))
    for step in range(3):
        real, fake = images(2 * step), images(2 * step + 1)
        joint(one, discriminator, real, fake)
        separate(other, discriminator, real, fake)
        measured, expected = (kd.get_extra_state()["balances"]["D"] for kd in (other, one))
        assert measured["ratio"] == pytest.approx(expected["ratio"], rel=1e-5)
        assert measured["calls"] == expected["calls"] == step + 1


def test_balanced_gradients_have_the_ratio_that_was_asked_for(attach, discriminator, images):
    kd = attach(terms={"agkd": 7.0}, p=0, balance=0.5, carried=True, head="identity")
    bare = attach(terms={"agkd": 0.0}, carried=True)
    for _ in range(3):  # measured in the second step, which is the first that has both roles
        taught = separate(kd, discriminator, images(1), images(2))
    plain = separate(bare, discriminator, images(1), images(2))
    bias = [name for name, _ in discriminator.named_parameters()].index("b4.fc.bias")  # its gradient sums the tap's
    assert not torch.allclose(taught[bias], plain[bias])
    unbalanced = attach(terms={"agkd": 7.0}, p=0, carried=True, head="identity")
    for _ in range(2):
        full = separate(unbalanced, discriminator, images(1), images(2))
    ratio = kd.get_extra_state()["balances"]["D"]["ratio"]
    assert torch.allclose(taught[bias] - plain[bias], (full[bias] - plain[bias]) * 0.5 / ratio, rtol=1e-4)


def test_a_penalty_on_gradients_stays_the_hosts(attach, discriminator, images):
    """R1 in the pass of the loss: what is penalised is the gradient of D alone, and distillation is added once."""
    kd = attach(terms=TERMS, p=0, carried=True)
    taught = separate(kd, discriminator, images(1), images(2), ("real",))
    taught = separate(kd, discriminator, images(1), images(2), ("real",))
    real = images(1).requires_grad_()

    def penalty(logits):
        return torch.autograd.grad(logits.sum(), real, create_graph=True)[0].square().sum()

    discriminator.zero_grad(), kd.zero_grad()
    penalty(discriminator(real)).backward()
    expected = [a if p.grad is None else a + p.grad for a, p in zip(taught, discriminator.parameters(), strict=False)]
    discriminator.zero_grad(), kd.zero_grad()
    with kd.capture("real"):
        logits = discriminator(real)
    (softplus(-logits).mean() + penalty(logits)).backward()
    assert equal(gradients(discriminator), expected)


def test_they_are_added_once(attach, discriminator, images):
    kd = attach(terms=TERMS, p=0, carried=True)
    separate(kd, discriminator, images(1), images(2))
    expected = separate(kd, discriminator, images(1), images(2))
    discriminator.zero_grad(), kd.zero_grad()
    for role, seed in (("fake", 2), ("real", 1)):
        with kd.capture(role):
            logits = discriminator(images(seed))
        loss = softplus(-logits if role == "real" else logits).mean()
        (0.25 * loss).backward(retain_graph=True)
        (0.75 * loss).backward()
    assert equal(gradients(discriminator, kd), expected)


@pytest.mark.parametrize("pull", [0.0, 5.0])
def test_the_gradients_of_g_are_those_of_the_joint_form(attach, discriminator, images, pull):
    kd = attach(terms=None, match=2.0, match_pull=pull, agkd=0.0, cgkd=0.0, critic=0.0)
    generator = nn.Conv2d(3, 3, 1)
    fake = generator(images(2))
    loss = softplus(-discriminator(fake)).mean()
    (loss + kd.for_generator(fake, images(1), loss).total).backward()
    expected = gradients(generator)
    generator.zero_grad()
    kd = attach(terms=None, match=2.0, match_pull=pull, agkd=0.0, cgkd=0.0, critic=0.0)
    fake = kd.guided(generator(images(2)), images(1))
    softplus(-discriminator(fake)).mean().backward()
    assert equal(gradients(generator), expected)
    assert set(kd.latest) == {"match"}


def test_steps_are_counted_by_their_roles(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0}, p=0, every=2, carried=True)
    bare = separate(attach(terms={"agkd": 0.0}, carried=True), discriminator, images(1), images(2))
    separate(kd, discriminator, images(1), images(2))
    taught = [not equal(separate(kd, discriminator, images(1), images(2))[: len(bare)], bare) for _ in range(4)]
    assert taught == [False, True, False, True]


def test_accumulated_rounds_are_one_step_if_the_host_says_so(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0}, p=0, every=2, carried=True)
    for step in range(4):
        kd.begin_step()
        for _ in range(3):
            before = len(kd.teacher.calls)
            separate(kd, discriminator, images(1), images(2))
            assert (len(kd.teacher.calls) > before) == (step % 2 == 0)


def test_backward_inside_the_block(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0}, carried=True)
    with pytest.raises(CaptureError, match="close the block first"), kd.capture("real"):
        discriminator(images(1)).sum().backward()
    separate(kd, discriminator, images(1), images(2))  # the step after that one works


def test_without_gradients_nothing_is_carried(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0}, carried=True)
    with torch.no_grad(), kd.capture("real"):
        discriminator(images(1))
    assert not kd.guided(images(1)).requires_grad


def test_kd_itself_adds_nothing_and_says_what_was_added(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0}, p=0, carried=True)
    separate(kd, discriminator, images(1), images(2))
    distilled = kd()
    assert distilled.total.item() == 0
    distilled.total.backward()
    assert set(distilled.terms) == {"agkd"}
    assert float(distilled.terms["agkd"]) > 0


def test_the_next_step_of_a_resumed_run_is_the_same(attach, discriminator, images):
    kd, resumed = (attach(terms=TERMS, p=1, balance=0.3, head="linear", carried=True) for _ in range(2))
    separate(kd, discriminator, images(1), images(2))
    separate(kd, discriminator, images(3), images(4))
    resumed.load_state_dict(kd.state_dict())
    expected = separate(kd, discriminator, images(5), images(6))
    for found, gradient in zip(separate(resumed, discriminator, images(5), images(6)), expected, strict=True):
        assert torch.equal(found, gradient)


def test_several_teachers(attach, discriminator, images, make_teacher):
    pair = [(1.0, make_teacher()), (0.5, make_teacher(4))]
    one, other = (
        attach(teacher=pair, terms={"agkd": 1.0}, p=0, head="linear", carried=carried) for carried in (False, True)
    )
    separate(other, discriminator, images(1), images(2))
    expected = joint(one, discriminator, images(1), images(2))
    assert equal(separate(other, discriminator, images(1), images(2)), expected)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"until": 0.1}, {"every": 2}])
def test_the_schedules_factor_is_not_balanced_away(attach, discriminator, images, options):
    """In the first measured step both forms know the same ratio, and both multiply by the same factor."""
    one, other = (
        attach(terms={"agkd": 1.0}, p=0, balance=0.5, carried=carried, **options) for carried in (False, True)
    )
    bare = attach(terms={"agkd": 0.0}, carried=True)
    plain = separate(bare, discriminator, images(1), images(2))
    pulls = []
    for kd, step, order in ((one, joint, []), (other, separate, [("real", "fake")])):
        for number in range(9):
            gradient = step(kd, discriminator, images(1), images(2), *order)
            if number % 2 == 0:  # with every=2, the others are left out
                taught = gradient
        pulls.append(sum((a - b).square().sum() for a, b in zip(taught, plain, strict=False)).sqrt().item())
    assert pulls[1] == pytest.approx(pulls[0], rel=1e-4)


def test_a_teachers_share_is_not_balanced_away(attach, discriminator, images, make_teacher):
    """Beside the joint form there is a small difference: what one teacher adds is there when the other is balanced."""
    pair = [(1.0, make_teacher()), (0.25, make_teacher(4))]
    one, other = (
        attach(teacher=pair, terms={"agkd": 1.0}, p=0, balance=0.5, carried=carried) for carried in (False, True)
    )
    for _ in range(3):
        expected = joint(one, discriminator, images(1), images(2))
        found = separate(other, discriminator, images(1), images(2))
    for gradient, reference in zip(found, expected, strict=True):
        assert (gradient - reference).norm() < 0.05 * reference.norm()


def test_a_layer_that_cannot_learn_beside_one_that_can(attach, discriminator, images):
    """The gradients reach the layer that they are of."""
    discriminator.b4["conv"].requires_grad_(False)
    one, other = (
        attach(terms={"agkd": 1.0}, p=0, layer="b4.conv,b4.fc", head="linear", carried=carried)
        for carried in (False, True)
    )

    separate(other, discriminator, images(1), images(2))
    expected = joint(one, discriminator, images(1), images(2))
    assert len(expected) == len(list(discriminator.parameters())) - 2 + 2
    assert equal(separate(other, discriminator, images(1), images(2)), expected)


def test_under_autocast_it_differs_from_the_joint_form_by_rounding(attach, discriminator, images):
    one = attach(terms=TERMS, p=0, head="linear")
    other = attach(terms=TERMS, p=0, head="linear", carried=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        separate(other, discriminator, images(5), images(6))
        expected = joint(one, discriminator, images(1), images(2))
        got = separate(other, discriminator, images(1), images(2))
    without = joint(attach(terms={"agkd": 0.0}), discriminator, images(1), images(2))
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * float(b.abs().max()))
    assert not equal(expected, without[: len(expected)])
