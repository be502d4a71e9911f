"""Balanced distillation pulls as hard as it was told to; the shuffled control teaches other images' embeddings."""

from __future__ import annotations

import pytest
import torch

from kd_plugin import KDConfig, KDError, gradient_ratio
from kd_plugin.balance import MOST, Balance
from kd_plugin.config.schema import from_dict
from kd_plugin.types import Distilled


@pytest.mark.parametrize("weight", [0.01, 1.0, 300.0])
def test_the_ratio_is_the_fraction_whatever_the_weight(weight, attach, discriminator, both):
    kd = attach(terms={"agkd": weight, "cgkd": weight}, balance=0.3, p=0)
    adversarial = both(kd, discriminator)
    distilled = kd(adversarial)
    assert float(gradient_ratio(distilled, adversarial)) == pytest.approx(0.3, rel=1e-4)
    assert float(distilled.terms["scale"]) > 0


def test_the_running_mean_is_the_formula(attach, discriminator, both):
    kd, plain = (attach(terms={"agkd": 1.0}, balance=fraction, p=0) for fraction in (0.5, 0))
    mean = None
    for step in range(4):
        adversarial = both(plain, discriminator, step)
        ratio = float(gradient_ratio(plain(), adversarial))
        mean = ratio if mean is None else 0.9 * mean + 0.1 * ratio
        adversarial = both(kd, discriminator, step)
        assert float(kd(adversarial).terms["scale"]) == pytest.approx(0.5 / mean, rel=1e-4)


def test_it_is_kept_in_the_state(attach, discriminator, both):
    kd, resumed = (attach(terms={"agkd": 1.0}, balance=0.5) for _ in range(2))
    kd(both(kd, discriminator))
    resumed.load_state_dict(kd.state_dict())
    kept = kd.get_extra_state()["balances"]["D"]
    assert resumed.get_extra_state()["balances"]["D"] == kept
    assert kept["ratio"] > 0


def test_without_the_adversarial_loss(attach, discriminator, both):
    kd = attach(terms={"agkd": 1.0}, balance=0.5)
    both(kd, discriminator)
    with pytest.raises(KDError, match=r"balance=: call kd\(adversarial=loss\)"):
        kd()


def test_a_vanished_gradient_moves_nothing():
    x = torch.ones(3, requires_grad=True)
    balance = Balance(0.3, "")
    still = Distilled((x * 0).sum(), {}, (x,))
    assert float(balance(still, x.sum()).terms["scale"]) == 1.0  # nothing is taught
    assert float(balance(Distilled(x.sum(), {}, (x,)), (x * 0).sum()).terms["scale"]) == 1.0  # nothing is judged
    weak = Distilled((x * 1e-9).sum(), {}, (x,))
    assert float(balance(weak, x.sum()).terms["scale"]) == MOST


def test_the_matching_term_pulls_at_least_so_hard_at_the_generators_images(attach, discriminator, images):
    def pull(weight, match_pull):
        kd = attach(terms={"match": weight}, match_pull=match_pull)
        fake = images(2).requires_grad_()
        adversarial = -discriminator(fake).mean()
        distilled = kd.for_generator(fake, images(1), adversarial=adversarial)
        return float(gradient_ratio(distilled, adversarial))

    plain = pull(1.0, 0)
    assert pull(1.0, 4 * plain) == pytest.approx(4 * plain, rel=1e-4)
    assert pull(0.01, plain) == pytest.approx(plain, rel=1e-4)
    assert pull(1.0, plain / 4) == pytest.approx(plain, rel=1e-4)  # what pulls harder is left as it is


def test_the_diversity_term_is_not_held_at_a_pull(attach, discriminator, images):
    """It has no end: held up, it would push fakes apart for ever."""
    fake, weights = images(2).requires_grad_(), {"diversity": 0.01}
    adversarial = -discriminator(fake).mean()
    alone = attach(terms=weights, match_pull=50.0).for_generator(fake)  # no loss of G is asked for
    assert torch.equal(alone.total, 0.01 * alone.terms["diversity"])
    both = attach(terms={"match": 1.0, **weights}, match_pull=50.0).for_generator(fake, images(1), adversarial)
    expected = alone.total + both.terms["scale_match"] * both.terms["match"]
    torch.testing.assert_close(both.total, expected)
    assert both.terms["scale_match"] > 1


def test_without_the_generators_loss(attach, images):
    kd = attach(terms={"match": 1.0}, match_pull=0.3)
    fake = images(2).requires_grad_()
    with pytest.raises(KDError, match=r"match=1\.0 is scaled by the adversarial loss"):
        kd.for_generator(fake, images(1))


def test_where_nothing_can_be_measured_nothing_moves(attach, images):
    kd = attach(terms={"match": 1.0}, match_pull=0.3)
    distilled = kd.for_generator(images(2), images(1), adversarial=images(2).mean())  # fakes without a graph
    assert float(distilled.terms["scale_match"]) == 1.0
    assert torch.equal(distilled.total, distilled.terms["match"])


def test_after_the_first_calls_one_of_some_is_measured():
    x = torch.ones(3, requires_grad=True)
    balance, resumed = (Balance(0.5, "", every=3) for _ in range(2))
    scales = []
    for call in range(8):
        scales.append(float(balance(Distilled((x * (call + 1)).sum(), {}, (x,)), x.sum()).terms["scale"]))
        resumed.load_state_dict(balance.state_dict())
        balance, resumed = resumed, balance
    means = [1.0]
    for call in range(1, 8):
        means.append(0.9 * means[-1] + 0.1 * (call + 1) if call in (1, 2, 3, 6) else means[-1])
    assert scales == pytest.approx([0.5 / mean for mean in means])


@pytest.mark.parametrize("fraction", [-0.1, float("nan"), float("inf")])
def test_no_fraction(fraction):
    with pytest.raises(KDError, match=r"balance=.* is not a fraction"):
        KDConfig(balance=fraction)
    with pytest.raises(KDError, match=r"match_pull=.* is not a fraction"):
        from_dict(KDConfig, {"match_pull": fraction})


def test_the_control_teaches_another_images_embedding(attach, discriminator, images, run, teacher):
    taught = attach(terms={"agkd": 1.0}, p=0, control="shuffle")
    distilled = run(taught, discriminator, images(1), images(2))
    expected = 0.0
    with torch.no_grad():
        for x in (images(1), images(2)):
            features = discriminator.b4["fc"](discriminator.b4["conv"](x).tanh().mean(dim=(2, 3)))
            embeddings = teacher.embed_images(x)
            for i in range(len(x)):
                expected += float((features[i] - embeddings[i - 1]).abs().mean()) / len(x)
    assert float(distilled.terms["agkd"]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(KDError, match="control='shufle' is unknown; choose one of none, shuffle"):
        KDConfig(control="shufle")
