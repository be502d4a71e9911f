"""The distiller as a host uses it: five lines, nothing borrowed is touched, weight 0 is the baseline to the bit."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn

import kd_plugin
from kd_plugin import KDError
from kd_plugin.functional import energy_distance


def features(discriminator, images):
    return discriminator.b4["fc"](discriminator.b4["conv"](images).tanh().mean(dim=(2, 3)))


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def grads(module):
    return [parameter.grad for parameter in module.parameters()]


# --- what it computes ----------------------------------------------------------------------------------------------


def test_the_five_lines(discriminator, teacher, images):
    D, real, fake = discriminator, images(1), images(2).requires_grad_()
    opt_d = torch.optim.Adam(D.parameters())

    def augment(x):
        return x.flip(3)

    kd = kd_plugin.attach(
        D,
        layer="b4.fc",
        teacher=teacher,
        prompts=["a photo of a cat", "a sketch of a cat"],
        terms={"agkd": 1.0, "cgkd": 1.0, "diversity": 1.0},
        view="seen",
        head="linear",
    )
    opt_d.add_param_group({"params": kd.parameters()})
    with kd.capture("real", clean=real):
        d_real = D(augment(real))
    with kd.capture("fake", clean=fake):
        d_fake = D(augment(fake.detach()))
    loss_d = (d_fake - d_real).mean()
    kd_terms = kd(loss_d)
    (loss_d + kd_terms.total).backward()
    head = kd.head.weight.detach().clone()
    opt_d.step()
    assert not torch.equal(kd.head.weight, head)
    assert fake.grad is None
    loss_g = -D(augment(fake)).mean()
    kd.for_generator(fake, real, loss_g).total.backward()
    assert fake.grad.abs().sum() > 0
    assert set(kd_terms.terms) == {"agkd", "cgkd", "scale"}
    for value in kd_terms.terms.values():
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert not value.requires_grad


def test_five_lines_with_a_head_without_parameters(attach, discriminator, images, run):
    kd, optimizer = attach(head="identity"), torch.optim.Adam(discriminator.parameters())
    optimizer.add_param_group({"params": kd.parameters()})
    assert [len(group["params"]) for group in optimizer.param_groups] == [6, 0]
    before = discriminator.b4["fc"].weight.detach().clone()
    run(kd, discriminator, images(1), images(2)).total.backward()
    optimizer.step()
    assert not torch.equal(discriminator.b4["fc"].weight, before)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_terms_and_total_are_the_formula(attach, discriminator, teacher, images, p, run, prompts):
    """Each image meets its own embedding; only with the coin (p = 1: always, p = 0: never) the other role's."""
    distilled = run(attach(terms={"agkd": 2.0, "cgkd": 3.0}, p=p), discriminator, images(1), images(2))
    d_real, d_fake = features(discriminator, images(1)), features(discriminator, images(2))
    i_real, i_fake = teacher.embed_images(images(1)), teacher.embed_images(images(2))
    texts = teacher.embed_texts(prompts)

    def l1(a, b):
        return (a - b).abs().mean()

    agkd = l1(i_real, d_real) + l1(i_fake, d_fake) + p * (l1(i_real, d_fake) + l1(i_fake, d_real))
    cgkd = sum(l1(unit(i @ texts.T), unit(d @ texts.T)) for i, d in ((i_real, d_real), (i_fake, d_fake)))
    torch.testing.assert_close(distilled.terms["agkd"], agkd.detach())
    torch.testing.assert_close(distilled.terms["cgkd"], cgkd.detach())
    torch.testing.assert_close(distilled.total, 2 * agkd + 3 * cgkd)
    expected = torch.autograd.grad(2 * agkd + 3 * cgkd, discriminator.b4["conv"].weight)[0]
    torch.testing.assert_close(torch.autograd.grad(distilled.total, discriminator.b4["conv"].weight)[0], expected)


def test_feature_maps_are_pooled_before_the_head(attach, discriminator, images, run):
    kd = attach(layer="b4.conv", terms={"agkd": 1.0}, p=0)
    assert tuple(kd.head.weight.shape) == (6, 5)
    seen = []
    kd.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert run(kd, discriminator, images(1), images(2)).terms["agkd"] > 0
    maps = discriminator.b4["conv"](torch.cat([images(1), images(2)]))
    torch.testing.assert_close(seen[0], maps.mean(dim=(2, 3)))


def test_gradient_accumulation_is_one_large_batch(attach, discriminator, images, run):
    kd = attach(p=0)
    whole = run(kd, discriminator, images(1), images(2))
    with kd.capture("real"):
        for part in images(1).split(2):
            discriminator(part)
    with kd.capture("fake"):
        for part in images(2).split(2):
            discriminator(part)
    torch.testing.assert_close(kd().total, whole.total)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_features(attach, discriminator, images, half, run):
    discriminator.to(half)
    distilled = run(attach(head="linear"), discriminator, images(1).to(half), images(2).to(half))
    assert distilled.total.dtype == torch.float32
    distilled.total.backward()
    assert discriminator.b4["fc"].weight.grad.dtype == half


def test_autocast_of_the_host_does_not_reach_the_losses(attach, discriminator, teacher, images, run, prompts):
    kd = attach(terms={"cgkd": 1.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distilled = run(kd, discriminator, images(1), images(2))
        d = [features(discriminator, images(seed)).float() for seed in (1, 2)]
    texts = teacher.embed_texts(prompts)
    expected = sum(
        (unit(teacher.embed_images(images(seed)) @ texts.T) - unit(student @ texts.T)).abs().mean()
        for seed, student in zip((1, 2), d, strict=True)
    )
    torch.testing.assert_close(distilled.total, expected, rtol=1e-5, atol=1e-6)


# --- what the teacher is shown -------------------------------------------------------------------------------------


def test_teacher_is_called_once_for_both_roles(attach, discriminator, teacher, images, run):
    run(attach(), discriminator, images(1), images(2))
    assert len(teacher.calls) == 1
    assert torch.equal(teacher.calls[0], torch.cat([images(1), images(2)]))


def test_only_the_generator_pays_for_a_graph_through_the_teacher(attach, discriminator, teacher, images, run):
    kd = attach(diversity=1)
    run(kd, discriminator, images(1), images(2))
    kd.for_generator(images(2))
    assert teacher.with_graph == [False, True]


def test_texts_are_embedded_once(attach, discriminator, teacher, images, run):
    kd = attach()
    for _ in range(3):
        run(kd, discriminator, images(1), images(2))
    assert teacher.text_calls == 1


def test_view_clean_shows_the_images_before_augmentation(attach, discriminator, teacher, images, run):
    run(attach(view="clean"), discriminator, images(1), images(2), clean=(images(3), images(4)))
    assert torch.equal(teacher.calls[0], torch.cat([images(3), images(4)]))


def test_two_sizes_need_two_calls(attach, discriminator, teacher, images, run):
    run(attach(view="clean"), discriminator, images(1), images(2), clean=(images(3, size=16), images(4)))
    assert [call.shape[-1] for call in teacher.calls] == [16, 8]


def test_grey_images_are_repeated(attach, make_discriminator, teacher, images, run):
    grey = make_discriminator(channels=1)
    run(attach(grey), grey, images(1, channels=1), images(2, channels=1))
    assert torch.equal(teacher.calls[0][:4], images(1, channels=1).repeat(1, 3, 1, 1))


# --- nothing borrowed is touched -----------------------------------------------------------------------------------


def test_state_holds_neither_discriminator_nor_teacher(attach):
    kd = attach(head="linear")
    assert set(kd.state_dict()) == {"head.weight", "head.bias", "_extra_state"}
    assert {name for name, _ in kd.named_parameters()} == {"head.weight", "head.bias"}
    assert set(attach(head="identity").state_dict()) == {"_extra_state"}


def test_teacher_stays_asleep_and_frozen(attach, discriminator, teacher, images, run):
    kd = attach(terms={"agkd": 1.0, "cgkd": 1.0, "diversity": 1.0})
    before = copy.deepcopy(teacher.network.state_dict())
    kd.train()
    kd.to(torch.float64).to(torch.float32)
    kd.requires_grad_(True)
    fake = images(2).requires_grad_()
    total = run(kd, discriminator, images(1), fake.detach()).total + kd.for_generator(fake).total
    total.backward()
    assert not any(module.training for module in teacher.network.modules())
    assert grads(teacher.network) == [None, None]
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    for name, value in teacher.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_training_mode_and_moves_do_not_reach_the_discriminator(attach, discriminator):
    kd = attach()
    discriminator.eval()
    kd.train()
    kd.to(torch.float64)
    assert not discriminator.training
    assert discriminator.b4["fc"].weight.dtype == torch.float32


def test_a_teacher_that_is_a_bare_module_is_frozen(attach, make_teacher, images):
    class Bare(nn.Module):
        name, fingerprint, vocabulary, embed_dim = "bare", "", None, 6

        def __init__(self):
            super().__init__()
            self.projection = nn.Linear(3, 6)

        def embed_images(self, images):
            return self.projection(images.mean(dim=(2, 3)))

        def embed_texts(self, texts):
            return make_teacher().embed_texts(texts)

    bare = Bare()
    kd = attach(teacher=bare, terms={"diversity": 1.0})
    kd.train()
    fake = images(2).requires_grad_()
    kd.for_generator(fake).total.backward()
    assert not bare.training
    assert grads(bare) == [None, None]
    assert fake.grad.abs().sum() > 0
    assert not list(kd.parameters())


def test_gradient_goes_to_the_discriminator_and_not_to_the_images(attach, discriminator, images, run):
    fake = images(2).requires_grad_()
    run(attach(), discriminator, images(1), fake.detach()).total.backward()
    assert fake.grad is None
    assert discriminator.b4["conv"].weight.grad.abs().sum() > 0
    assert grads(discriminator.b4["out"]) == [None, None]  # above the tapped layer


# --- the generator's term ------------------------------------------------------------------------------------------


def test_diversity_reaches_the_generator_through_the_teacher(attach, images):
    """Against a central difference along a random direction."""
    kd = attach(terms={"diversity": 0.5})
    fake, step = images(2).requires_grad_(), 2e-3
    distilled = kd.for_generator(fake)
    torch.testing.assert_close(distilled.total.detach(), 0.5 * distilled.terms["diversity"])
    (gradient,) = torch.autograd.grad(distilled.total, fake)
    direction = torch.randn(fake.shape, generator=torch.Generator().manual_seed(5))
    ahead, behind = (kd.for_generator(images(2) + sign * step * direction).total for sign in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-2)


def test_descending_the_diversity_term_spreads_the_fakes(attach, images):
    kd = attach(terms={"diversity": 1.0})
    fake = images(2).requires_grad_()
    before = kd.for_generator(fake).total
    (gradient,) = torch.autograd.grad(before, fake)
    assert kd.for_generator(fake.detach() - 0.5 * gradient).total < before


def test_the_matching_term_is_the_energy_distance_to_the_real_images(attach, teacher, images):
    kd = attach(terms={"match": 0.5}, prompts=None)  # it asks for no texts
    f, r = teacher.embed_images(images(2)), teacher.embed_images(images(1))
    fake = images(2).requires_grad_()
    distilled = kd.for_generator(fake, images(1))
    torch.testing.assert_close(distilled.total, 0.5 * energy_distance(f, r))
    assert distilled.terms == {"match": energy_distance(f, r)}
    (gradient,) = torch.autograd.grad(distilled.total, fake)
    nearer = kd.for_generator(images(2) - gradient / gradient.norm(), images(1))
    assert nearer.total < distilled.total


def test_both_terms_of_the_generator_are_added(attach, images):
    parts = [attach(terms=one).for_generator(images(2), images(1)) for one in ({"match": 0.5}, {"diversity": 2.0})]
    both = attach(terms={"diversity": 2.0, "match": 0.5}).for_generator(images(2), images(1))
    torch.testing.assert_close(both.total, parts[0].total + parts[1].total)
    assert both.terms == {**parts[0].terms, **parts[1].terms}


def test_matching_looks_at_each_real_image_once(attach, teacher, images):
    kd = attach(terms={"match": 1.0})
    keys = torch.tensor([3, 1, 4, 9])
    first = kd.for_generator(images(2).requires_grad_(), images(1), keys=keys)
    again = kd.for_generator(images(2).requires_grad_(), images(1), keys=keys)
    assert first.terms == again.terms
    assert [call.tolist() == images(1).tolist() for call in teacher.calls] == [False, True, False]


def test_matching_needs_real_images(attach, images):
    kd = attach(terms={"match": 1.0})
    with pytest.raises(KDError, match=r"match=1.0: call kd.for_generator\(fake, real, loss\)"):
        kd.for_generator(images(2).requires_grad_())


def test_a_term_of_the_generator_that_nobody_asks_for(attach, images):
    kd = attach(terms={"match": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            kd.for_generator(images(2), images(1))
            for _ in range(5):  # steps of D
                kd()
        attach(terms={"match": 0.0})()
    for _ in range(94):  # and the five above
        kd()
    with pytest.warns(
        UserWarning, match=r"match=1.0 had no effect: in G's step add kd.for_generator\(fake, real, loss\).total"
    ):
        kd()


def test_matching_leaves_the_discriminator_alone(attach, discriminator, images, run, teacher):
    distilled = run(attach(terms={"match": 1.0}), discriminator, images(1), images(2))
    assert float(distilled.total) == 0
    assert not teacher.calls


def test_diversity_off_asks_no_teacher(attach, teacher, images):
    distilled = attach().for_generator(images(2).requires_grad_())
    assert float(distilled.total) == 0
    assert distilled.terms == {}
    assert not teacher.calls


# --- weight 0 is the baseline --------------------------------------------------------------------------------------


def train(make_discriminator, make_kd, steps=5):
    """A small GAN loop that draws from the global random state; returns all parameters at its end."""
    torch.manual_seed(0)
    discriminator = make_discriminator()
    generator = nn.Sequential(nn.Linear(4, 3 * 8 * 8), nn.Tanh(), nn.Dropout(0.3))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-2)
    kd = make_kd(discriminator)
    if kd is not None:
        opt_d.add_param_group({"params": kd.parameters()})
    for _ in range(steps):
        real, fake = torch.rand(4, 3, 8, 8) * 2 - 1, generator(torch.randn(4, 4)).view(4, 3, 8, 8)
        loss_g = nn.functional.softplus(-discriminator(fake)).mean()
        if kd is not None:
            loss_g = loss_g + kd.for_generator(fake).total
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        if kd is None:
            d_real, d_fake, extra = discriminator(real), discriminator(fake.detach()), None
        else:
            with kd.capture("real", clean=real):
                d_real = discriminator(real)
            with kd.capture("fake", clean=fake):
                d_fake = discriminator(fake.detach())
            extra = kd().total
        loss_d = nn.functional.softplus(d_fake).mean() + nn.functional.softplus(-d_real).mean()
        opt_d.zero_grad()
        (loss_d if extra is None else loss_d + extra).backward()
        opt_d.step()
    return [p.detach().clone() for p in (*discriminator.parameters(), *generator.parameters())]


def test_weight_zero_equals_the_baseline_bit_for_bit(attach, make_discriminator, teacher):
    baseline = train(make_discriminator, lambda d: None)
    off = train(make_discriminator, lambda d: attach(d, terms={"agkd": 0, "cgkd": 0, "diversity": 0}, head="linear"))
    assert not teacher.calls
    assert all(torch.equal(a, b) for a, b in zip(baseline, off, strict=True))
    on = train(make_discriminator, lambda d: attach(d, terms={"agkd": 1e-3}))
    assert not all(torch.equal(a, b) for a, b in zip(baseline, on, strict=True))


def test_weight_zero_sets_no_hooks_and_needs_no_prompts(discriminator, teacher, images):
    kd = kd_plugin.attach(discriminator, teacher=teacher, terms={}, view="clean")
    with kd.capture("real"):
        assert not discriminator._forward_pre_hooks
    distilled = kd()
    assert float(distilled.total) == 0
    assert distilled.terms == {}


# --- the coin ------------------------------------------------------------------------------------------------------


def coins(run, kd, discriminator, images, steps):
    """Whether each step's term contains the crossed pairs."""
    uncrossed = kd_plugin.attach(discriminator, teacher=kd.teacher, config=kd.config, terms={"agkd": 1.0}, p=0)
    uncrossed.head = kd.head
    own = run(uncrossed, discriminator, images(1), images(2)).terms["agkd"]
    return [bool(run(kd, discriminator, images(1), images(2)).terms["agkd"] > own * 1.001) for _ in range(steps)]


def test_coin_follows_p_and_the_seed(attach, discriminator, images, run):
    drawn = coins(run, attach(terms={"agkd": 1.0}, p=0.7, seed=1), discriminator, images, 200)
    assert 0.6 < sum(drawn) / 200 < 0.8
    assert drawn[:40] == coins(run, attach(terms={"agkd": 1.0}, p=0.7, seed=1), discriminator, images, 40)
    assert drawn[:40] != coins(run, attach(terms={"agkd": 1.0}, p=0.7, seed=2), discriminator, images, 40)
    assert all(coins(run, attach(terms={"agkd": 1.0}, p=1), discriminator, images, 40))
    assert not any(coins(run, attach(terms={"agkd": 1.0}, p=0), discriminator, images, 40))


def test_nothing_draws_from_the_global_random_state(attach, discriminator, images, run):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run(attach(head="linear"), discriminator, images(1), images(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_resume_continues_the_coins(attach, discriminator, images, run):
    options = {"terms": {"agkd": 1.0}, "p": 0.5, "seed": 3, "head": "linear"}
    through = attach(**options)
    expected = coins(run, through, discriminator, images, 20)
    first = attach(**options)
    coins(run, first, discriminator, images, 10)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = attach(**{**options, "seed": 99})
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(resumed.head.weight, first.head.weight)
    assert coins(run, resumed, discriminator, images, 10) == expected[10:]


def test_looking_at_held_out_images_moves_nothing(attach, discriminator, images, run):
    """A spectral norm's vectors move at every call in training."""
    kd = attach(head="mlp", norm="standardise")
    run(kd, discriminator, images(1), images(2))
    before = copy.deepcopy(kd.state_dict())
    shares = kd.held_out(images(3), 2)(discriminator)
    assert set(shares) == {"total", "agkd", "cgkd"}
    assert kd.head.training
    for name, value in kd.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("options", [{"terms": {"agkd": 0.0}}, {"every": 3}, {"until": 1e-6}])
def test_where_nothing_is_distilled_the_total_can_be_backpropagated(attach, discriminator, images, run, options):
    kd = attach(**options)
    for _ in range(3):
        run(kd, discriminator, images(1), images(2)).total.backward()
        kd.for_generator(images(2)).total.backward()
