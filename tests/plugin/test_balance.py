"""Balanced distillation pulls as hard as it was told to; the shuffled control teaches other images' embeddings."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import KDConfig, KDError, gradient_ratio
from kd_plugin.balance import MOST, Balance
from kd_plugin.records import Distilled


@pytest.mark.parametrize("weight", [0.01, 1.0, 300.0])
def test_the_ratio_is_the_fraction_whatever_the_weight(weight, attach, discriminator, both):
    kd = attach(losses={"agkd": weight, "cgkd": weight}, balance=0.3, p=0)
    adversarial = both(kd, discriminator)
    distilled = kd(adversarial)
    assert float(gradient_ratio(distilled, adversarial)) == pytest.approx(0.3, rel=1e-4)
    assert float(distilled.terms["scale"]) > 0


def test_the_running_mean_is_the_formula(attach, discriminator, both):
    kd, plain = (attach(losses={"agkd": 1.0}, balance=fraction, p=0) for fraction in (0.5, 0))
    mean = None
    for step in range(4):
        adversarial = both(plain, discriminator, step)
        ratio = float(gradient_ratio(plain(), adversarial))
        mean = ratio if mean is None else 0.9 * mean + 0.1 * ratio
        adversarial = both(kd, discriminator, step)
        assert float(kd(adversarial).terms["scale"]) == pytest.approx(0.5 / mean, rel=1e-4)


def test_it_is_kept_in_the_state(attach, discriminator, both):
    kd, resumed = (attach(losses={"agkd": 1.0}, balance=0.5) for _ in range(2))
    kd(both(kd, discriminator))
    resumed.load_state_dict(kd.state_dict())
    assert resumed.get_extra_state()["ratio"] == kd.get_extra_state()["ratio"] is not None


def test_without_the_adversarial_loss(attach, discriminator, both):
    kd = attach(losses={"agkd": 1.0}, balance=0.5)
    both(kd, discriminator)
    with pytest.raises(KDError, match=r"--kd-balance: call kd\(adversarial=loss\)"):
        kd()


def test_a_vanished_gradient_moves_nothing():
    x = torch.ones(3, requires_grad=True)
    balance = Balance(0.3)
    still = Distilled((x * 0).sum(), {}, (x,))
    assert float(balance(still, x.sum()).terms["scale"]) == 1.0  # nothing is taught
    assert float(balance(Distilled(x.sum(), {}, (x,)), (x * 0).sum()).terms["scale"]) == 1.0  # nothing is judged
    weak = Distilled((x * 1e-9).sum(), {}, (x,))
    assert float(balance(weak, x.sum()).terms["scale"]) == MOST


@pytest.mark.parametrize("fraction", [-0.1, float("nan"), float("inf")])
def test_no_fraction(fraction):
    with pytest.raises(KDError, match=r"--kd-balance: .* is not a fraction"):
        KDConfig(balance=fraction)


def test_the_control_teaches_another_images_embedding(attach, discriminator, images, run, teacher):
    taught = attach(losses={"agkd": 1.0}, p=0, control="shuffle")
    distilled = run(taught, discriminator, images(1), images(2))
    expected = 0.0
    with torch.no_grad():
        for x in (images(1), images(2)):
            features = discriminator.b4["fc"](discriminator.b4["conv"](x).tanh().mean(dim=(2, 3)))
            embeddings = teacher.embed_images(x)
            for i in range(len(x)):
                expected += float((features[i] - embeddings[i - 1]).abs().mean()) / len(x)
    assert float(distilled.terms["agkd"]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(KDError, match="--kd-control: 'shufle' is unknown; choose one of none, shuffle"):
        KDConfig(control="shufle")
