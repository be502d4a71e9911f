"""A discriminator under torch.compile: the same numbers, or a refusal with the reason."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import CaptureError


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def gradients(kd, d, inner, images):
    with kd.capture("real"):
        real = d(images(1))
    with kd.capture("fake"):
        fake = d(images(2))
    total = kd().total + (fake - real).mean()
    inner.zero_grad()
    total.backward()
    return float(total.detach()), [parameter.grad.clone() for parameter in inner.parameters()]


@pytest.mark.parametrize("how", ["whole", "in place", "a part"])
def test_a_compiled_discriminator_gives_the_same(attach, make_discriminator, images, how):
    plain, inner = make_discriminator(), make_discriminator()
    expected, wanted = gradients(attach(plain, p=0), plain, plain, images)
    d = inner
    if how == "whole":
        d = torch.compile(inner, backend="aot_eager")
    else:
        (inner if how == "in place" else inner.b4["fc"]).compile(backend="aot_eager")
    kd = attach(d, p=0)
    for _ in range(2):
        d(images(3))  # outside a block nothing is watched
        found, got = gradients(kd, d, inner, images)
        assert found == pytest.approx(expected, rel=1e-5)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_attached_too_late(attach, discriminator, images):
    d = torch.compile(discriminator, backend="aot_eager")
    d(images(1))
    kd = attach(d)
    message = r"did not fire .*: call kd_plugin.attach\(\) before the first call of a compiled D"
    with pytest.raises(CaptureError, match=message), kd.capture("real"):
        d(images(1))


@pytest.mark.parametrize("how", ["whole", "in place"])
def test_the_backward_pass_of_a_compiled_discriminator_carries_the_same(attach, make_discriminator, images, how):
    plain, inner = make_discriminator(), make_discriminator()
    d = torch.compile(inner, backend="aot_eager") if how == "whole" else inner
    if how == "in place":
        inner.compile(backend="aot_eager")
    kds = [attach(d, p=0, head="linear", carried=True), attach(plain, p=0, head="linear", carried=True)]
    for seed in (1, 3):  # the second step crosses with the first
        found, wanted = (
            carried_gradients(kd, module, weights, images(seed), images(seed + 1))
            for kd, module, weights in zip(kds, (d, plain), (inner, plain), strict=True)
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def carried_gradients(kd, d, inner, real, fake):
    inner.zero_grad(), kd.zero_grad()
    for role, batch in (("fake", fake), ("real", real)):
        with kd.capture(role):
            loss = d(batch).mean()
        loss.backward()
    return [p.grad.clone() for p in [*inner.parameters(), *kd.parameters()] if p.grad is not None]
