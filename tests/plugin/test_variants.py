"""The published forms, each against its formulas in loops; and the pieces they are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import kd_plugin
from kd_plugin import KDConfig, KDError
from kd_plugin.config.kd import VARIANTS, variant_values
from kd_plugin.config.schema import from_dict
from kd_plugin.functional import correlations
from kd_plugin.teachers.image_input import as_in_the_release
from kd_plugin.terms.diversity import mean_cosine


def features(discriminator, x):
    return discriminator.b4["fc"](discriminator.b4["conv"](x).tanh().mean(dim=(2, 3)))


class SizedTeacher:
    """The fixtures' teacher with a declared preprocessing: normalises, as CLIP does, and wants 16 pixels."""

    image_size, normalisation = 16, ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

    def __init__(self, teacher):
        self._teacher = teacher
        self.name, self.embed_dim, self.fingerprint, self.vocabulary = "sized", teacher.embed_dim, "1" * 64, None
        self.embed_texts = teacher.embed_texts
        self.seen = []

    def embed_images(self, images):
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.normalisation)
        normalised = ((images + 1) / 2 - mean) / std
        self.seen.append(normalised)
        return self._teacher.network(functional.adaptive_avg_pool2d(normalised, 4))


def test_every_variant_names_real_options():
    for name in VARIANTS:
        assert from_dict(KDConfig, variant_values(name)) != KDConfig()


def test_paper(attach, discriminator, teacher, images, run, prompts):
    kd = attach(variant="paper", p=1)
    distilled = run(kd, discriminator, images(1), images(2))
    d = [features(discriminator, images(seed)) for seed in (1, 2)]
    i = [teacher.embed_images(images(seed)) for seed in (1, 2)]
    n = len(d[0])
    agkd = sum(
        float((i[a][row] - d[b][row]).abs().mean()) / n for a in (0, 1) for b in (0, 1) for row in range(n)
    )  # own pairs and crossed ones
    assert float(distilled.terms["agkd"]) == pytest.approx(agkd, rel=1e-5)
    fake = images(3).requires_grad_()
    for_generator = kd.for_generator(fake)
    expected = mean_cosine(correlations(teacher.embed_images(fake), teacher.embed_texts(prompts)))
    assert float(for_generator.total) == pytest.approx(float(expected), rel=1e-5)


def test_release(discriminator, teacher, images, run, prompts):
    sized = SizedTeacher(teacher)
    kd = kd_plugin.attach(discriminator, teacher=sized, prompts=prompts, variant="release")
    distilled = run(kd, discriminator, images(1), images(2))
    texts = teacher.embed_texts(prompts)
    agkd = cgkd = 0.0
    with torch.no_grad():
        # What the network saw: pixels repeated, and in [-1, 1] where CLIP would normalise.
        torch.testing.assert_close(sized.seen[0], functional.interpolate(torch.cat([images(1), images(2)]), (16, 16)))
        kd.eval()  # spectral norm stands still
        d = [kd.head(features(discriminator, images(seed))) for seed in (1, 2)]
        i = [teacher.network(functional.adaptive_avg_pool2d(images(seed), 4)) for seed in (1, 2)]
        for a in (0, 1):
            for row in range(4):
                for b in (0, 1):
                    agkd += float((i[a][row] - d[b][row]).square().sum().sqrt()) / 4
                c_t, c_s = i[a][row] @ texts.T, d[a][row] @ texts.T
                cgkd += float((c_t / c_t.norm() - c_s / c_s.norm()).square().sum())
    assert float(distilled.terms["agkd"]) == pytest.approx(agkd, rel=1e-4)
    assert float(distilled.terms["cgkd"]) == pytest.approx(cgkd, rel=1e-4)
    assert float(distilled.total) == pytest.approx(10 * agkd + 10 * cgkd, rel=1e-4)
    assert float(kd.for_generator(images(3)).total) == 0


def test_orthogonal(attach, discriminator, images, run):
    kd = attach(variant="orthogonal")
    distilled = run(kd, discriminator, images(1), images(2))
    assert set(distilled.terms) == {"agkd"}
    assert kd.config.norm == "whiten"
    torch.testing.assert_close(kd.head.map.weight @ kd.head.map.weight.T, torch.eye(6))


def test_options_go_over_a_variant(attach):
    assert attach(variant="release", p=0.5, preprocess="teacher").config.p == 0.5
    with pytest.raises(KDError, match="variant='papr' is unknown; nearest: 'paper'"):
        attach(variant="papr")
    assert variant_values(None) == {}


def test_release_needs_a_teacher_that_tells_its_preprocessing(teacher, images):
    with pytest.raises(kd_plugin.TeacherError, match="preprocess='release': teacher 'fake' does not state"):
        as_in_the_release(images(1), teacher)


def test_diversity_on_the_student(attach, discriminator, images, run, teacher, prompts):
    kd = attach(terms={"diversity": 2.0}, diversity_on="student")
    distilled = run(kd, discriminator, images(1), images(2))
    expected = mean_cosine(correlations(features(discriminator, images(2)), teacher.embed_texts(prompts)))
    assert float(distilled.total) == pytest.approx(2 * float(expected), rel=1e-5)
    distilled.total.backward()
    assert discriminator.b4["conv"].weight.grad.abs().sum() > 0
    assert float(kd.for_generator(images(2)).total) == 0


def test_diversity_off(attach, discriminator, images, run):
    kd = attach(terms={"diversity": 2.0}, diversity_on="off")
    assert float(run(kd, discriminator, images(1), images(2)).total) == 0
    assert float(kd.for_generator(images(2)).total) == 0


def test_several_layers_are_joined(attach, discriminator, teacher, images, run):
    kd = attach(layer="b4.conv,b4.fc", terms={"agkd": 1.0}, p=0)
    assert tuple(kd.head.weight.shape) == (6, 5 + 6)
    distilled = run(kd, discriminator, images(1), images(2))
    expected = 0.0
    for seed in (1, 2):
        maps = discriminator.b4["conv"](images(seed))
        joined = torch.cat([maps.mean(dim=(2, 3)), features(discriminator, images(seed))], dim=1)
        expected += float((kd.head(joined) - teacher.embed_images(images(seed))).abs().mean())
    assert float(distilled.total) == pytest.approx(expected, rel=1e-5)
    assert [output.ndim for output in distilled.outputs] == [4, 2, 4, 2]
    with pytest.raises(kd_plugin.LayerError, match=r"layer='b4.cnov' .*nearest: 'b4.conv'"):
        attach(layer="b4.fc,b4.cnov")


def test_a_layer_in_a_list_that_tells_no_width(attach, discriminator):
    discriminator.b4["act2"] = nn.LeakyReLU()
    with pytest.raises(kd_plugin.LayerError, match=r"'b4.act2' \(LeakyReLU\) does not state"):
        attach(layer="b4.fc,b4.act2")
