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
