"""How public training loops call their discriminators: what works, and what is said where it cannot."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

import kd_plugin
from kd_plugin import CaptureError, KDError, LayerError
from tests.plugin.host_steps import gradients, joint

TERMS = {"agkd": 2.0, "cgkd": 3.0}
FROZEN = "the captured layer passes no gradient on to D ('real'): "


def together(kd, d, real, fake, roles, clean=None, call=None):
    """D is called once with all images, as in BigGAN."""
    d.zero_grad(), kd.zero_grad()
    with kd.capture(roles, clean=clean):
        logits = (call or d)(torch.cat([fake, real]))
    of_fake, of_real = logits.split([len(fake), len(real)])
    loss = softplus(-of_real).mean() + softplus(of_fake).mean()
    (loss + kd(loss).total).backward()
    return gradients(d, kd)


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


# One call for real and generated images


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("layer", ["b4.fc", "b4.conv,b4.fc"])
def test_real_and_fake_in_one_call(attach, discriminator, images, carried, layer):
    expected = joint(attach(terms=TERMS, layer=layer, head="linear"), discriminator, images(1), images(2))
    kd = attach(terms=TERMS, layer=layer, head="linear", carried=carried)
    assert_equal(together(kd, discriminator, images(1), images(2), ("fake", "real")), expected)
    assert torch.equal(kd.teacher.calls[-1], torch.cat([images(1), images(2)]))  # the real ones first


class Distribution(torch.Tensor):
    """As in BigGAN-PyTorch: results of operations are of this class too, but lack its attribute."""

    def to(self, *arguments, **options):
        return super().to(self.kind and arguments[0], *arguments[1:], **options)


@pytest.mark.parametrize("carried", [False, True])
def test_tensors_of_a_class_of_the_host(attach, discriminator, images, carried):
    of_a_class = images(1).as_subclass(Distribution), images(2).as_subclass(Distribution)
    results = []
    for real, fake in (of_a_class, (images(1), images(2))):
        kd = attach(terms={**TERMS, "match": 1.0}, layer="b4.conv,b4.fc", head="mlp", view="clean", carried=carried)
        found = together(kd, discriminator, real, fake, ("fake", "real"), clean=torch.cat([fake, real]))
        fake = fake.requires_grad_()
        if carried:
            guided = kd.guided(fake, real)
            assert type(guided) is type(fake)
            (of_fake,) = torch.autograd.grad(guided.square().sum(), fake)
        else:
            (of_fake,) = torch.autograd.grad(kd.for_generator(fake, real).total, fake)
        results.append([gradient.as_subclass(torch.Tensor) for gradient in [*found, of_fake]])
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("carried", [False, True])
def test_the_balance_of_one_call(attach, discriminator, images, carried):
    one = attach(terms=TERMS, p=0, balance=0.5)
    expected = joint(one, discriminator, images(1), images(2))
    kd = attach(terms=TERMS, p=0, balance=0.5, carried=carried)
    assert_equal(together(kd, discriminator, images(1), images(2), ("fake", "real")), expected)
    ratio, calls = (kd.get_extra_state()["balances"]["D"][name] for name in ("ratio", "calls"))
    assert ratio == pytest.approx(one.get_extra_state()["balances"]["D"]["ratio"], rel=1e-5)
    assert calls == 1


def test_numbers_that_differ(attach, discriminator, images):
    expected = joint(attach(terms=TERMS, p=0), discriminator, images(1), images(2, 3))
    kd = attach(terms=TERMS, p=0)
    assert_equal(together(kd, discriminator, images(1), images(2, 3), {"fake": 3, "real": 4}), expected)
    message = "7 rows cannot be divided into fake and real as equal parts; give the numbers, as in capture({'fake'"
    with pytest.raises(CaptureError, match=re.escape(message)):
        together(kd, discriminator, images(1), images(2, 3), ("fake", "real"))
    with pytest.raises(CaptureError, match=re.escape("7 rows cannot be divided into fake and real as 2 + 4")):
        together(kd, discriminator, images(1), images(2, 3), {"fake": 2, "real": 4})


def test_clean_images_and_keys_of_one_call(attach, discriminator, teacher, images):
    kd = attach(terms={"agkd": 1.0}, view="clean")
    clean = torch.cat([images(4), images(3)])
    for _ in range(2):
        with kd.capture(("fake", "real"), clean=clean, keys=torch.arange(4)):
            discriminator(torch.cat([images(2), images(1)]))
        kd()
    seen = torch.cat(teacher.calls)
    assert len(seen) == 12  # the reals are embedded once
    assert torch.equal(seen[:4], images(4))
    message = re.escape("capture(('fake', 'real'), keys=...): 3 keys, but D saw 4")
    few = kd.capture(("fake", "real"), clean=clean, keys=torch.arange(3))
    with pytest.raises(CaptureError, match=message), few:
        discriminator(torch.cat([images(2), images(1)]))
    with pytest.raises(CaptureError, match=re.escape("capture(('fake', 'real')) needs the images before augmentation")):
        kd.capture(("fake", "real"))


def test_several_calls_with_both_in_one_block(attach, discriminator, images):
    expected = joint(attach(terms=TERMS, p=0), discriminator, images(1), images(2))
    kd = attach(terms=TERMS, p=0)

    def halves(joined):
        """Fake and real halves, as accumulated."""
        logits = [discriminator(joined[[k, k + 1, 4 + k, 5 + k]]) for k in (0, 2)]
        return torch.cat([*(part[:2] for part in logits), *(part[2:] for part in logits)])

    assert_equal(together(kd, discriminator, images(1), images(2), ("fake", "real"), call=halves), expected)


@pytest.mark.parametrize("roles", [("real", "real"), (), "reals", ("fake", "reel")])
def test_roles_that_are_none(attach, roles):
    with pytest.raises(
        CaptureError, match=r"unknown role 'ree?a?ls?'; nearest|give 'real', 'fake', or both in the order"
    ):
        attach().capture(roles)


# How D is called, and what it takes and returns


def test_forward_without_the_call(attach, discriminator, images):
    expected = joint(attach(terms=TERMS, p=0), discriminator, images(1), images(2))
    kd = attach(terms=TERMS, p=0)
    assert_equal(
        together(kd, discriminator, images(1), images(2), ("fake", "real"), call=lambda x: discriminator.forward(x)),
        expected,
    )
    assert "forward" not in vars(discriminator)


def test_a_forward_that_somebody_replaced_stays(attach, discriminator, images):
    calls = []
    original = discriminator.forward

    def forward(img):
        calls.append(img)
        return original(img)

    discriminator.forward = forward
    kd = attach(terms={"agkd": 1.0})
    joint(kd, discriminator, images(1), images(2))
    assert len(calls) == 2
    assert discriminator.forward is forward


def test_inside_another_module(attach, discriminator, images):
    kd = attach(terms=TERMS, p=0)
    expected = joint(attach(terms=TERMS, p=0), discriminator, images(1), images(2))
    both = nn.Sequential(nn.Identity(), discriminator)
    assert_equal(together(kd, discriminator, images(1), images(2), ("fake", "real"), call=both), expected)


def test_a_list_of_images(attach, discriminator, images):
    """FastGAN gives D the images in two sizes; those of full size come first."""

    class OfList(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = discriminator

        def forward(self, pyramid, label):
            return [self.inner(pyramid[0]), pyramid[1].mean()]

    d = OfList()
    kd = attach(d, layer="inner.b4.fc", terms={"agkd": 1.0}, p=0)
    for role, seed in (("real", 1), ("fake", 2)):
        with kd.capture(role):
            d([images(seed), images(seed)[:, :, ::2, ::2]], "real")
    assert kd().total > 0
    assert torch.equal(torch.cat(kd.teacher.calls), torch.cat([images(1), images(2)]))


def test_a_layer_with_several_outputs(attach, discriminator, images):
    class Pair(nn.Module):
        def forward(self, x):
            return {"map": x, "flat": x.mean(dim=(2, 3))}

    class OfPair(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.pair, self.logit = nn.Conv2d(3, 6, 3), Pair(), nn.Linear(6, 1)

        def forward(self, x):
            return self.logit(self.pair(self.body(x))["flat"])

    d = OfPair()
    kd = attach(d, layer="pair[flat]", width=6, terms={"agkd": 1.0})
    assert all(gradient.abs().sum() > 0 for gradient in joint(kd, d, images(1), images(2)))
    with pytest.raises(LayerError, match=re.escape("returns a dict of 2; write layer='pair[map]' ([4, 6, 6, 6]) or")):
        joint(attach(d, layer="pair", width=6, terms={"agkd": 1.0}), d, images(1), images(2))


class OfTokens(nn.Module):
    """A transformer's features [N, T, C], the class token first; as many tokens as channels."""

    def __init__(self):
        super().__init__()
        self.patches, self.block, self.logit = nn.Conv2d(3, 6, 4, 4), nn.Identity(), nn.Linear(6, 1)
        self.first = nn.Parameter(torch.ones(1, 2, 6))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.logit(self.block(torch.cat([self.first.expand(len(x), -1, -1), tokens], dim=1)).mean(dim=1))


@pytest.mark.parametrize(("layout", "of"), [("auto", lambda x: x.mean(1)), ("class_token", lambda x: x[:, 0])])
def test_tokens(attach, images, run, layout, of):
    d = OfTokens()
    kd = attach(d, layer="block", width=6, layout=layout, head="identity", terms={"agkd": 1.0}, p=0)
    expected = 0
    for seed in (1, 2):
        tokens = torch.cat([d.first.expand(4, -1, -1), d.patches(images(seed)).flatten(2).transpose(1, 2)], dim=1)
        expected += (of(tokens) - kd.teacher.embed_images(images(seed))).abs().mean()
    torch.testing.assert_close(run(kd, d, images(1), images(2)).total, expected)
    with pytest.raises(KDError, match="layout='class' is unknown; nearest: 'class_token'"):
        attach(d, layer="block", width=6, layout="class")


def test_images_of_several_sizes_in_one_block(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0})
    message = "images of different shapes in one block ([3, 8, 8] and [3, 16, 16]); put only the calls with one of them"
    with pytest.raises(CaptureError, match=re.escape(message)), kd.capture("real"):
        discriminator(images(1)), discriminator(images(1, size=16))


def test_several_discriminators(attach, make_discriminator, images):
    ds = [make_discriminator(seed=seed) for seed in (1, 2)]
    message = "discriminator: got a list, expected an nn.Module; attach() once to each discriminator"
    with pytest.raises(KDError, match=re.escape(message)):
        attach(ds)
    kds = [attach(d, terms={"agkd": 1.0}) for d in ds]
    for kd, d in zip(kds, ds, strict=True):
        assert len(joint(kd, d, images(1), images(2))) == 6


def test_data_parallel_on_one_device_is_looked_through(attach, discriminator, images):
    wrapped = nn.DataParallel(discriminator)
    kd = attach(wrapped, terms={"agkd": 1.0})
    assert len(joint(kd, wrapped, images(1), images(2))) == 6
    wrapped.device_ids = [0, 1]
    with pytest.raises(KDError, match="in DataParallel over 2 devices its layers are copied"):
        attach(wrapped)


# Nothing to learn from


def test_a_frozen_discriminator(attach, discriminator, images):
    discriminator.requires_grad_(False)
    kd = attach(terms={"agkd": 1.0}, head="linear")
    with pytest.raises(CaptureError, match=re.escape(FROZEN + "all parameters of D are frozen; call D.requires_grad")):
        joint(kd, discriminator, images(1), images(2))


def test_a_layer_of_a_frozen_backbone(attach, discriminator, images):
    discriminator.b4["conv"].requires_grad_(False)
    kd = attach(terms={"agkd": 1.0}, layer="b4.conv")
    with pytest.raises(
        CaptureError, match=re.escape(FROZEN + "it and all layers before it are frozen; choose a layer")
    ):
        joint(kd, discriminator, images(1), images(2))
    assert len(joint(attach(terms={"agkd": 1.0}), discriminator, images(1), images(2))) == 4


def test_without_gradients(attach, discriminator, images, run):
    kd = attach(terms={"agkd": 1.0})
    with torch.no_grad():
        for role, seed in (("real", 1), ("fake", 2)):
            with kd.capture(role):
                discriminator(images(seed))
    with pytest.raises(CaptureError, match=re.escape(FROZEN + "D ran under torch.no_grad()")):
        kd()
    with torch.no_grad():  # only looked at
        assert run(kd, discriminator, images(1), images(2)).total > 0
        balanced = attach(terms={"agkd": 1.0}, balance=0.3)
        for role, seed in (("real", 1), ("fake", 2)):
            with balanced.capture(role):
                logits = discriminator(images(seed))
        assert balanced(logits.mean()).total > 0


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("carried", [False, True])
def test_checkpointing(attach, discriminator, images, carried):
    terms = {"layer": "inner.b4.fc", "terms": {"agkd": 1.0}, "p": 0, "carried": carried}
    d = Checkpointed(discriminator, True)
    with pytest.raises(CaptureError, match=r"with torch\.utils\.checkpoint pass use_reentrant=False"):
        joint(attach(d, **terms), d, images(1).requires_grad_(), images(2).requires_grad_())
    d = Checkpointed(discriminator, False)
    expected = joint(attach(terms={"agkd": 1.0}, p=0), discriminator, images(1), images(2))
    if carried:
        expected = together(attach(terms={"agkd": 1.0}, p=0), discriminator, images(1), images(2), ("fake", "real"))
    kd = attach(d, **terms)
    got = together(kd, d, images(1), images(2), ("fake", "real")) if carried else joint(kd, d, images(1), images(2))
    assert_equal(got, expected)


# The loss, and when kd() is called


@pytest.mark.parametrize("shape", [(), (4,), (4, 1)])
def test_the_mean_of_the_loss_is_what_counts(attach, discriminator, images, shape):
    totals: list[float] = []
    for _ in range(2):
        kd = attach(terms=TERMS, p=0, balance=0.3)
        with kd.capture("real"):
            real = discriminator(images(1))
        with kd.capture("fake"):
            fake = discriminator(images(2))
        loss = softplus(-real) + softplus(fake)  # [N, 1]
        totals.append(float(kd(loss.mean() if not totals or shape == () else loss.reshape(shape)).total))
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loss: loss.detach(), "the adversarial loss has no graph; give the tensor itself, not its .item()"),
        (lambda loss: loss.item(), "the adversarial loss is a float; give the tensor itself"),
        (lambda loss: None, "call kd(adversarial=loss) with the loss of D"),
    ],
)
def test_a_loss_that_tells_no_gradient(attach, discriminator, both, change, message):
    kd = attach(terms={"agkd": 1.0}, balance=0.3)
    with pytest.raises(KDError, match=re.escape(message)):
        kd(change(both(kd, discriminator)))
    loss = both(kd, discriminator)
    (loss + kd(loss).total).backward()  # the step after that one works


@pytest.mark.parametrize("balance", [0.0, 0.3])
def test_kd_after_the_backward_pass(attach, discriminator, both, balance):
    kd = attach(terms={"agkd": 1.0}, balance=balance)
    loss = both(kd, discriminator)
    loss.backward()
    message = r"has freed its graph; call kd\(\) before.* use attach\(..., carried=True\)"
    with pytest.raises(CaptureError, match=message):
        kd(loss)
    loss = both(kd, discriminator)
    loss.backward(retain_graph=True)
    kd(loss).total.backward()


def test_r1_before_kd_frees_nothing(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0})
    real = images(1).requires_grad_()
    with kd.capture("real"):
        of_real = discriminator(real)
    (gradient,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
    with kd.capture("fake"):
        of_fake = discriminator(images(2))
    (of_fake.mean() - of_real.mean() + gradient.square().sum() + kd().total).backward()


def test_an_abandoned_step(attach, discriminator, images, run):
    kd = attach(terms={"agkd": 1.0}, p=0)
    expected = run(kd, discriminator, images(1), images(2)).total
    with kd.capture("real"):
        discriminator(images(5))
    with pytest.warns(UserWarning, match="'real' was captured again before kd"):
        assert run(kd, discriminator, images(1), images(2)).total == expected


def test_distiller_and_compiled_discriminator_can_be_saved(attach, make_discriminator, images, tmp_path):
    torch._dynamo.reset()
    inner = make_discriminator()
    d = torch.compile(inner, backend="aot_eager")
    kd = attach(d, terms={"agkd": 1.0})
    joint(kd, d, images(1), images(2))
    for name, saved in (("d", inner), ("kd", kd)):
        torch.save(saved, tmp_path / name)
    loaded = torch.load(tmp_path / "d", weights_only=False)
    assert torch.equal(loaded(images(1)), inner(images(1)))
    loaded = torch.load(tmp_path / "kd", weights_only=False)
    assert loaded.state_dict().keys() == kd.state_dict().keys()
    assert kd_plugin.Distiller is type(loaded)
