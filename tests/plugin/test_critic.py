"""The critic: a discriminator on frozen features, with parameters and an optimiser of its own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import softplus

from kd_plugin import KDError
from kd_plugin.diffaugment import ALL, DiffAugment
from kd_plugin.seeding import draws_of
from tests.plugin.test_match_stages import StagedTeacher


@pytest.fixture
def teacher() -> StagedTeacher:
    return StagedTeacher()


def step(kd, fake, real):
    return kd.for_generator(fake.requires_grad_(), real)


def logits(kd, teacher, images):
    embedding, stages = teacher.embed_with_stages(images, ["early", "late"])
    cells = [torch.nn.functional.adaptive_avg_pool2d(stage, grid) for stage, grid in zip(stages, (4, 2), strict=True)]
    return [head(rows) for head, rows in zip(kd.terms["critic"].heads, [embedding, *cells], strict=True)]


def test_it_is_the_logistic_loss_of_its_heads(attach, images, teacher):
    kd = attach(terms={"critic": 2.0}, critic_on="early,late,embedding", critic_augment="none")
    fake, real = images(1, 6), images(2, 4)
    before = copy.deepcopy(kd)
    result = step(kd, fake, real)
    expected = [softplus(-rows).mean() for rows in logits(kd, teacher, fake)]  # after the heads' step
    torch.testing.assert_close(result.total, 2 * torch.stack(expected).mean())
    assert list(result.terms) == ["critic", "critic/embedding", "critic/early", "critic/late"]
    (gradient,) = torch.autograd.grad(result.total, fake)
    assert gradient.abs().sum(dim=(1, 2, 3)).min() > 0

    before.terms["critic"].requires_grad_(True)
    loss = torch.stack(
        [
            0.8 * softplus(-of_real).mean() + 0.2 * softplus(of_real).mean() + softplus(of_fake).mean()
            for of_real, of_fake in zip(logits(before, teacher, real), logits(before, teacher, fake), strict=True)
        ]
    ).mean()
    loss.backward()
    optimizer = torch.optim.Adam(before.terms["critic"].parameters(), lr=0.002, betas=(0.0, 0.99))
    optimizer.step()
    for ours, theirs in zip(kd.terms["critic"].parameters(), before.terms["critic"].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_learns_to_tell_and_points_the_way(attach, images, teacher):
    """Real images are bright: after some steps the critic says so, and G's gradient brightens generated ones."""
    kd = attach(terms={"critic": 1.0}, critic_on="stages")
    for seed in range(60):
        result = step(kd, images(seed) * 0.5 - 0.4, images(100 + seed) * 0.5 + 0.4)
    assert result.terms["critic"] > 1.2  # log 2 when it cannot tell
    fake = (images(1) * 0.5 - 0.4).requires_grad_()
    (gradient,) = torch.autograd.grad(kd.for_generator(fake, images(2) * 0.5 + 0.4).total, fake)
    assert gradient.mean() < 0


def test_its_heads_are_trained_by_nobody_else(attach, images):
    kd = attach(terms={"critic": 1.0, "agkd": 1.0}, critic_on="stages")
    own = {id(parameter) for parameter in kd.terms["critic"].parameters()}
    assert own
    assert own.isdisjoint(id(parameter) for parameter in kd.parameters())
    step(kd, images(1), images(2)).total.backward()
    assert all(parameter.grad is None for parameter in kd.terms["critic"].parameters())


def test_it_goes_on_where_it_was(attach, images):
    kd = attach(terms={"critic": 1.0}, critic_on="stages")
    step(kd, images(1), images(2))
    other = attach(terms={"critic": 1.0}, critic_on="stages")
    other.load_state_dict(copy.deepcopy(kd.state_dict()))
    for seed in (3, 5):
        assert step(other, images(seed), images(2)).terms == step(kd, images(seed), images(2)).terms


def test_its_start_depends_on_the_seed_alone(attach, images, monkeypatch):
    drawn = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: drawn.append("CUDA was seeded"))
    for seed in (0, 0, 1):
        torch.random.default_generator.manual_seed(len(drawn))
        kd = attach(terms={"critic": 1.0}, critic_on="stages", seed=seed)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(len(drawn))))
        drawn.append(kd.terms["critic"].heads[3][1].weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_on_the_embedding_alone_it_needs_no_stages(attach, images, make_teacher):
    kd = attach(terms={"critic": 1.0}, critic_on="embedding", teacher=make_teacher())
    assert list(step(kd, images(1), images(2)).terms) == ["critic"]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none(rate, attach):
    with pytest.raises(KDError, match=r"critic_lr=.* is not a learning rate; give a number above 0"):
        attach(terms={"critic": 1.0}, critic_lr=rate)


def test_it_sees_augmented_images_where_the_host_shows_clean_ones(attach, images, teacher):
    """Matching, beside it, sees the images as they are, and those of real images from its cache."""
    kd = attach(terms={"critic": 1.0, "match": 1.0}, view="clean", critic_on="early,late,embedding", match_pull=0)
    alone = attach(terms={"match": 1.0}, view="clean", match_pull=0)
    fake, real, keys = images(1, 6), images(2, 4), torch.arange(4)
    before = torch.get_rng_state()
    result = kd.for_generator(fake, real, keys=keys)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's draws are those of a run without the critic
    assert result.terms["match"] == alone.for_generator(fake, real, keys=keys).terms["match"]

    seen = logits(kd, teacher, DiffAugment("color,translation,cutout")(fake, draws_of(0, 0, 0, fake.device)))
    torch.testing.assert_close(result.terms["critic"], torch.stack([softplus(-rows).mean() for rows in seen]).mean())


def test_the_teacher_looks_once_for_terms_with_the_same_augmentation(attach, images, teacher, monkeypatch):
    looks, embed = [], teacher.embed_with_stages
    monkeypatch.setattr(teacher, "embed_with_stages", lambda shown, names: looks.append(shown) or embed(shown, names))
    for augment, count in (("none", 4), ("auto", 2), ("color,translation,cutout", 2)):
        kd = attach(terms={"critic": 1.0, "match": 1.0}, view="clean", match_augment=augment, match_pull=0)
        looks.clear()
        kd.for_generator(images(1), images(2))
        assert len(looks) == count  # of generated and of real images


def test_matching_sees_what_its_augmentation_makes(attach, images, teacher):
    kd, plain = (
        attach(terms={"match": 1.0}, view="clean", match_augment=policy, match_pull=0) for policy in ("cutout", "none")
    )
    fake, real, keys = images(1, 6), images(2, 4), torch.arange(4)
    augmented = kd.for_generator(fake, real, keys=keys).terms["match"]
    draws = draws_of(0, 0, 0, fake.device)
    shown = [DiffAugment("cutout")(images, draws) for images in (fake, real)]
    torch.testing.assert_close(augmented, plain.for_generator(*shown).terms["match"])


@pytest.mark.parametrize(
    ("view", "given", "policies"),
    [("seen", "auto", []), ("clean", "none", []), ("seen", "cutout", ["cutout"]), ("auto", "auto", [ALL])],
)
def test_which_augmentation(view, given, policies, attach, images, monkeypatch):
    calls = []
    monkeypatch.setattr(DiffAugment, "__call__", lambda self, images, draws: calls.append(self.policy) or images)
    attach(terms={"critic": 1.0}, view=view, critic_augment=given).for_generator(images(1), images(2))
    assert calls == policies * 2  # generated and real images


def test_images_in_another_range_are_augmented_alike(attach, images):
    """What moves in is grey, the middle of either range."""
    values = []
    for image_range, scale, offset in (((-1, 1), 1, 0), ((0, 255), 127.5, 127.5)):
        kd = attach(terms={"critic": 1.0}, view="clean", image_range=image_range)
        values.append(kd.for_generator(images(1) * scale + offset, images(2) * scale + offset).terms["critic"])
    torch.testing.assert_close(*values)


def test_an_unknown_augmentation(attach):
    with pytest.raises(KDError, match=r"critic_augment='colour': unknown policy 'colour'; nearest: 'color'"):
        attach(terms={"critic": 1.0}, critic_augment="colour")
