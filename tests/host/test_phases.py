"""The phases of a step: micro-batches, frozen layers, LeCam, precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from kd_plugin import Distiller, attach
from torch_utils.gradients import NanWatch, average_and_sanitize
from torch_utils.ranks import ALONE
from torch_utils.stats import Stat, Stats, Stopwatch
from training.augment import DiffAugment
from training.config import TrainConfig
from training.lecam import LeCam
from training.monitors.strength import StrengthMonitor
from training.monitors.variety import VarietyMonitor, spread
from training.networks.stylegan2 import Discriminator, Generator
from training.phases import Batch, Phase, StepContext, make_phases
from training.precision import choose_precision, set_precision
from training.presets import resolve

CPU = torch.device("cpu")


class FixedLatents(StepContext):
    """Hands out one fixed sequence of latents, however it is asked for them."""

    def latents(self, count: int) -> tuple[Tensor, Tensor]:
        start = SEQUENCE["next"]
        SEQUENCE["next"] += count
        z = torch.randn([64, self.G.z_dim], generator=torch.Generator().manual_seed(1))
        return z[start : start + count], torch.zeros(count, 0)


SEQUENCE = {"next": 0}


def make(**options: object) -> tuple[TrainConfig, StepContext]:
    torch.manual_seed(0)
    given = {"cfg": "demo", "cbase": 128, "cmax": 16, "z_dim": 4, "w_dim": 16, "pl_weight": 2, **options}
    config = resolve(given, {"teacher": "none"}, 16)
    shared = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_base": 128, "channel_max": 16}
    G = Generator(z_dim=4, w_dim=16, mapping_layers=2, use_noise=False, **shared)
    D = Discriminator(mbstd_group_size=1, **shared)
    G, D = G.requires_grad_(False), D.requires_grad_(False)
    lecam = LeCam(config.lecam, CPU) if config.lecam else None
    context = FixedLatents(
        G, D, DiffAugment("none"), lambda n: torch.zeros(n, 0), None, None, lecam, Stats(), Stopwatch(CPU),
        NanWatch(CPU), ALONE, 0.0, config.loss, CPU,
    )  # fmt: skip
    return config, context


def batch_of(size: int) -> Batch:
    images = torch.randn([size, 3, 16, 16], generator=torch.Generator().manual_seed(2))
    return Batch(images, torch.zeros(size, 0), torch.arange(size))


def gradients(phase: Phase, micro: int) -> list[Tensor]:
    SEQUENCE["next"] = 0
    phase.optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
    phase.step(batch_of(8).split(micro))
    return [parameter.grad.clone() for parameter in phase.parameters if parameter.grad is not None]


@pytest.mark.parametrize("name", ["Gmain", "Dmain", "Dreg"])
def test_micro_batches_give_the_same_gradient(name: str) -> None:
    """--batch-gpu only splits the work."""
    config, context = make(lecam=0.3)
    (phase,) = [phase for phase in make_phases(config, context) if phase.name == name]
    assert context.lecam is not None
    found = []
    for micro in (8, 2):
        context.lecam.load_state_dict({"means": torch.tensor([0.5, -0.5]), "started": True})
        found.append(gradients(phase, micro))
    whole, split = found
    assert len(whole) > 10
    for a, b in zip(whole, split, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("view", ["seen", "clean", "auto"])
def test_the_generators_terms_show_the_teacher_what_the_view_says(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As D sees them, fakes and reals alike; or clean, with keys."""
    config, context = make()
    kd = attach(context.D, teacher="demo", terms={"match": 1.0}, view=view)
    asked = []
    monkeypatch.setattr(kd, "for_generator", lambda *given: asked.append(given) or Distiller.for_generator(kd, *given))
    context = dataclasses.replace(context, kd=kd, augment=lambda images: images.clamp(-0.5, 0.5))
    SEQUENCE["next"] = 0
    batch = batch_of(4)
    make_phases(config, context)[0].step([batch])
    ((fake, real, adversarial, *keys),) = asked
    assert fake.requires_grad
    assert (float(fake.detach().abs().max()) > 0.5) == (view != "seen")
    if view == "seen":
        torch.testing.assert_close(real, batch.real.clamp(-0.5, 0.5))
        assert not keys
    else:
        assert real is batch.real
        assert keys == [batch.indices]
    assert adversarial.requires_grad
    assert context.stats.drain(ALONE)["Loss/KD/match"].mean > 0


def test_frozen_layers_stay_as_they_were() -> None:
    config, context = make(freezed=3)
    before = {name: value.clone() for name, value in context.D.named_parameters()}
    for phase in make_phases(config, context):
        SEQUENCE["next"] = 0
        phase.step([batch_of(4)])
    same = {name for name, value in context.D.named_parameters() if torch.equal(value, before[name])}
    frozen = {f"b16.{layer}.{kind}" for layer in ("fromrgb", "conv0", "conv1") for kind in ("weight", "bias")}
    assert same == frozen


def test_lecam_is_its_formula() -> None:
    """Against a loop over samples; the running means against a loop over steps."""
    lecam = LeCam(0.3, CPU, decay=0.9)
    means = None
    for step in range(4):
        real, fake = (torch.randn(5, 1, generator=torch.Generator().manual_seed(10 * step + i)) for i in range(2))
        expected = 0.0
        if means is not None:
            expected = sum((float(r) - means[1]) ** 2 for r in real) / 5
            expected += sum((float(f) - means[0]) ** 2 for f in fake) / 5
        assert float(lecam.penalty(real, fake)) == pytest.approx(expected, rel=1e-5)
        lecam.step(ALONE)
        now = [float(real.mean()), float(fake.mean())]
        means = now if means is None else [0.9 * old + 0.1 * new for old, new in zip(means, now, strict=True)]
    assert lecam.state_dict()["means"].tolist() == pytest.approx(means, rel=1e-5)


def test_lecam_pulls_real_scores_towards_fake_ones() -> None:
    lecam = LeCam(1.0, CPU)
    lecam.load_state_dict({"means": torch.tensor([3.0, -3.0]), "started": True})
    real, fake = torch.full([4, 1], 2.0, requires_grad=True), torch.full([4, 1], -2.0, requires_grad=True)
    lecam.penalty(real, fake).backward()
    assert (real.grad > 0).all()  # a step against the gradient lowers real scores
    assert (fake.grad < 0).all()


def test_settle_counts_and_mends_what_is_not_finite() -> None:
    good, bad = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    good.grad, bad.grad = torch.ones(2), torch.tensor([math.nan, math.inf, -math.inf])
    watch = NanWatch(CPU)
    for parameters, streak in (([good, bad], 1), ([good], 0), ([bad], 0)):
        watch.note(average_and_sanitize(parameters, ALONE))
        watch.end_step()
        assert watch.streak() == streak
    assert bad.grad.tolist() == [0, 1e5, -1e5]  # mended in the first step, and finite since
    assert watch.drain() == 1
    assert watch.drain() == 0


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision_is_that_of_the_high_resolutions(precision: str, dtype: torch.dtype) -> None:
    D = Discriminator(0, 32, 3, channel_base=128, channel_max=16, num_fp16_res=2)
    seen = {}
    for name in ("b32", "b16", "b8"):
        D.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o[0].dtype}))
    set_precision(D, "bf16")
    set_precision(D, precision)
    logits = D(torch.randn(2, 3, 32, 32))
    assert logits.dtype == torch.float32
    assert seen == {"b32": dtype, "b16": dtype, "b8": torch.float32}
    assert D(torch.randn(2, 3, 32, 32), force_fp32=True).dtype == torch.float32
    assert seen["b32"] == torch.float32


def test_bf16_learns_what_fp32_learns() -> None:
    D = Discriminator(0, 32, 3, channel_base=512, channel_max=64, num_fp16_res=4, conv_clamp=256)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {}
    for precision in ("fp32", "bf16"):
        set_precision(D, precision)
        D.zero_grad()
        D(images).sum().backward()
        found[precision] = torch.cat([parameter.grad.flatten() for parameter in D.parameters()])
    cosine = torch.nn.functional.cosine_similarity(found["fp32"], found["bf16"], dim=0)
    assert 0.999 < cosine < 1


def test_auto_precision_on_a_cpu_measures_large_networks_only() -> None:
    D = Discriminator(0, 32, 3, channel_base=512, channel_max=64, num_fp16_res=4)
    assert choose_precision("auto", D, CPU) == "fp32"
    large = Discriminator(0, 16, 3, channel_base=16384, channel_max=256, num_fp16_res=4)
    assert choose_precision("auto", large, CPU) in ("fp32", "bf16")
    assert large.get_submodule("b16").dtype == torch.float16  # left as it was


def test_variety_is_missed_once_when_it_goes() -> None:
    watch, images = VarietyMonitor(of_reals=0.1), torch.rand(8, 3, 4, 4) * 2 - 1
    assert spread(images.expand(8, -1, -1, -1)[:1]) == 0
    assert watch.note(images) == []
    assert watch.note(images * 0.6) == []
    (line,) = watch.note(images * 0.4)
    assert "lose variety: their spread is 40% of what it was" in line
    assert watch.note(images * 0.4) == []
    again = VarietyMonitor(of_reals=0.1)
    again.load_state_dict(watch.state_dict())
    assert again.note(images * 0.3) == []
    assert watch.note(images) == []
    assert len(watch.note(images * 0.1)) == 1


def test_one_image_is_a_collapse_from_the_first_snapshot_on() -> None:
    reals = torch.rand(8, 3, 4, 4) * 2 - 1
    one = reals[:1].expand(8, -1, -1, -1)
    watch = VarietyMonitor(spread(reals))
    (line,) = watch.note(one + 0.1 * reals)
    assert "almost the same image (collapse): their spread is" in line
    assert watch.note(one) == []
    far = torch.where(one > 0, 2.0, -2.0) + 0.9 * reals  # differ only where nothing is shown
    assert spread(far) == 0 < float(far.std(dim=0).mean())
    told = VarietyMonitor(spread(reals))
    told.load_state_dict(watch.state_dict())
    assert told.note(one) == []
    assert watch.note(reals) == []
    assert len(watch.note(far)) == 1


def test_strength_is_told_once() -> None:
    def note(p: float, on_d: float, on_g: float = 1.0) -> list[str]:
        names = {"Progress/augment": p, "Loss/KD/grad_ratio": on_d, "Loss/KD/grad_ratio_G": on_g}
        return watch.note({name: Stat(1, value) for name, value in names.items()})

    watch = StrengthMonitor(adaptive=True)
    assert note(0.99, 0.3) == []
    (line,) = note(1.0, 4.0)
    assert "ADA's p has reached 1" in line
    assert note(1.0, 4.0) == []
    (line,) = note(1.0, 4.0)
    assert "outweighs the adversarial loss at D's feature (4.0 times its gradient)" in line
    assert note(0.9, 4.0, 40.0) == note(1.0, 4.0, 40.0)[1:] == []
    (line,) = note(1.0, 4.0, 40.0)
    assert "at G's images (40.0 times" in line
    watch = StrengthMonitor(adaptive=False)
    assert note(1.0, float("nan")) == watch.note({}) == []
