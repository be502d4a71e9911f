"""Training loops that forget the heads: their gradients are cleared with D's, and a missing optimiser is reported."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from kd_plugin import optimizer_steps
from kd_plugin.student.graph import last_parameter
from tests.plugin.host_steps import joint_loss

TERMS = {"agkd": 1.0, "cgkd": 1.0}


def clear(d, to_none):
    d.zero_grad(set_to_none=to_none)


def loss_of(kd, d, images, step):
    return joint_loss(kd, d, images(2 * step), images(2 * step + 1))


def head_gradients(kd):
    return [p.grad.clone() for p in kd.parameters()]


def once(attach, discriminator, images, step):
    """Those of a single step."""
    kd = attach(terms=TERMS, p=0, head="linear")
    loss_of(kd, discriminator, images, step).backward()
    return head_gradients(kd)


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("when", ["before the forward pass", "before the backward pass"])
@pytest.mark.parametrize("layer", ["b4.fc", "b4.conv"])
def test_they_are_cleared_with_those_of_d(attach, discriminator, images, to_none, when, layer):
    expected = {step: once(lambda **o: attach(layer=layer, **o), discriminator, images, step) for step in (0, 3)}
    kd = attach(terms=TERMS, p=0, head="linear", layer=layer)
    discriminator.zero_grad()
    for step in (0, 1, 2, 3):
        if when == "before the forward pass":
            clear(discriminator, to_none)
        loss = loss_of(kd, discriminator, images, step)
        if when == "before the backward pass":
            clear(discriminator, to_none)
        loss.backward()
        if step in expected:
            assert_equal(head_gradients(kd), expected[step])


def test_accumulated_gradients_stay(attach, discriminator, images):
    parts = [once(attach, discriminator, images, step) for step in (0, 1)]
    kd = attach(terms=TERMS, p=0, head="linear")
    discriminator.zero_grad()
    for step in (0, 1):
        loss_of(kd, discriminator, images, step).backward()
    assert_equal(head_gradients(kd), [a + b for a, b in zip(*parts, strict=True)])


@pytest.mark.parametrize("to_none", [True, False])
def test_carried_by_two_passes(attach, discriminator, images, to_none):
    kd = attach(terms=TERMS, p=0, head="linear", carried=True)
    steps = []
    for step in (0, 1, 1):
        clear(discriminator, to_none)
        for role, seed in (("fake", 2 * step + 1), ("real", 2 * step)):
            with kd.capture(role):
                logits = discriminator(images(seed))
            softplus(-logits if role == "real" else logits).mean().backward()
        steps.append(head_gradients(kd))
    assert_equal(steps[-1], once(attach, discriminator, images, 1))


def test_the_reference_is_behind_the_layer(discriminator, images):
    features = discriminator.b4["fc"](discriminator.b4["conv"](images(1)).mean(dim=(2, 3)))
    assert last_parameter(features) in set(discriminator.b4["conv"].parameters())
    assert last_parameter(images(1)) is None
    real = images(1).requires_grad_()  # for R1
    features = discriminator.b4["conv"](real)
    assert last_parameter(features) in set(discriminator.b4["conv"].parameters())
    discriminator.b4["conv"].requires_grad_(False)
    features = discriminator.b4["fc"](discriminator.b4["conv"](images(1)).mean(dim=(2, 3)))
    assert last_parameter(features) in set(discriminator.b4["fc"].parameters())


def train(kd, d, images, optimizers, steps=8):
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(kd, d, images, step).backward()
        for optimizer in optimizers:
            optimizer.step()


def watchers():
    gc.collect()  # distillers of other tests
    return len(optimizer_steps._WATCHERS)


def test_heads_in_no_optimizer(attach, discriminator, images):
    before = watchers()
    kd = attach(terms=TERMS, head="linear")
    unrelated = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"no optimiser trains .*opt_d.add_param_group\(\{'params'") as caught:
        train(kd, discriminator, images, [torch.optim.SGD(discriminator.parameters(), lr=0.1), unrelated])
    assert len([w for w in caught if "no optimiser" in str(w.message)]) == 1
    assert watchers() == before


@pytest.mark.parametrize("own", [True, False])
def test_heads_in_an_optimizer(attach, discriminator, images, own):
    before = watchers()
    kd = attach(terms=TERMS, head="linear")
    opt_d = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    optimizers = [opt_d, torch.optim.Adam(kd.parameters())] if own else [opt_d]
    if not own:
        opt_d.add_param_group({"params": kd.parameters()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(kd, discriminator, images, optimizers)
    assert watchers() == before


def test_a_distiller_that_is_gone_leaves_nothing_behind(attach, discriminator, images):
    before = watchers()
    kd = attach(terms=TERMS, head="linear")
    opt_d = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    loss_of(kd, discriminator, images, 0).backward()
    gone = weakref.ref(kd)
    del kd
    gc.collect()
    assert gone() is None
    assert watchers() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            opt_d.step()


def test_two_distillers_settle_in_the_same_step(attach, discriminator, images):
    kds = [attach(terms=TERMS, head="linear") for _ in range(2)]
    optimizer = torch.optim.SGD([p for kd in kds for p in kd.parameters()], lr=0.1)
    optimizer.add_param_group({"params": discriminator.parameters()})
    for kd in kds:
        loss_of(kd, discriminator, images, 0).backward()
    optimizer.step()
