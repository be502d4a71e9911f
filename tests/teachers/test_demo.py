"""The demo teacher knows its drawings, behaves as a teacher must, and its training script can make another one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from experiments import train_demo_teacher as training
from kd_plugin.errors import TeacherError
from kd_plugin.teachers import demo, load_teacher
from kd_plugin.teachers.base import Teacher
from kd_plugin.teachers.preprocess import Preprocess
from training.demo_drawings import draw


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("demo")


@pytest.mark.parametrize(
    ("level", "least"),
    [("pair", 0.95), ("subject", 0.95), ("colour", 0.98)],
)
def test_zero_shot_accuracy_on_held_out_drawings(teacher: Teacher, level: str, least: float) -> None:
    thing = "something {}" if level == "colour" else "a {}"
    templates = [frame.format(thing) for frame in ("a photo of {}", "a drawing of {}", "a sketch of {}", "{}")]
    accuracy = training.zero_shot(teacher, level, templates, count=360)
    assert min(accuracy.values()) >= least, accuracy


def test_it_still_sees_through_augmentation(teacher: Teacher) -> None:
    drawings = [draw(index, training.HELD_OUT_SERIES) for index in range(360)]
    images = training.spoil(training.images_of(drawings), torch.Generator().manual_seed(7))
    names = training.LEVELS["pair"]
    texts = F.normalize(teacher.embed_texts([f"a photo of a {name}" for name in names]), dim=1)
    best = (teacher.embed_images(images) @ texts.T).argmax(1).tolist()
    right = [names[k] == training.meaning(drawing, "pair") for k, drawing in zip(best, drawings, strict=True)]
    assert np.mean(right) >= 0.85  # the cutout hides some subjects altogether


def test_the_held_out_drawings_are_no_demo_drawings_nor_training_drawings() -> None:
    assert len({0, training.HELD_OUT_SERIES, training.TRAINING_SERIES}) == 3
    held_out = {np.asarray(draw(index, training.HELD_OUT_SERIES).image).tobytes() for index in range(360)}
    shown = {
        np.asarray(draw(index, series).image).tobytes()
        for series in (0, training.TRAINING_SERIES)
        for index in range(1000)
    }
    assert not held_out & shown


def test_the_file_is_small_and_free_of_code() -> None:
    assert demo.WEIGHTS.stat().st_size < 1_000_000
    with np.load(demo.WEIGHTS, allow_pickle=False) as arrays:
        assert {arrays[name].dtype.name for name in arrays.files} == {"float16", "int32"}


def test_embeddings_have_clips_scale_and_the_teachers_shape(teacher: Teacher) -> None:
    images = training.images_of([draw(index, training.HELD_OUT_SERIES) for index in range(72)])
    embeddings = teacher.embed_images(images)
    assert embeddings.shape == (72, teacher.embed_dim)
    assert embeddings.dtype == torch.float32
    assert embeddings.norm(dim=1).mean().item() == pytest.approx(10, abs=0.5)
    assert teacher.vocabulary is None


def test_larger_drawings_embed_alike(teacher: Teacher) -> None:
    small, large = (training.images_of([draw(index, 1, size) for index in range(36)]) for size in (32, 64))
    cosine = F.cosine_similarity(teacher.embed_images(small), teacher.embed_images(large))
    assert cosine.min() > 0.9


def test_the_embedding_is_differentiable_with_respect_to_the_image(teacher: Teacher) -> None:
    generator = torch.Generator().manual_seed(0)
    images = (0.9 * training.images_of([draw(index, 1) for index in range(4)])).requires_grad_()  # away from the clip
    direction = torch.randn(images.shape, generator=generator)
    weights = torch.randn(4, teacher.embed_dim, generator=generator)
    (gradient,) = torch.autograd.grad((teacher.embed_images(images) * weights).sum(), images)
    with torch.no_grad():
        step = 1e-3
        high, low = (teacher.embed_images(images + sign * step * direction).mul(weights).sum() for sign in (1, -1))
    numeric = (high - low).item() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=0.02)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(demo.WEIGHTS.read_bytes()[:1000])
    empty = tmp_path / "empty.npz"
    np.savez(empty, nothing=np.zeros(1))
    for path in (tmp_path / "absent.npz", damaged, empty):
        with pytest.raises(TeacherError) as caught:
            demo.load(path=path)
        assert str(caught.value).startswith(f"--kd=demo: {path} cannot be read as the demo teacher's weights (")
        assert "reinstall kd_plugin" in str(caught.value)


def test_the_loss_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (5, 3))
    shown = [0, 1, 1, 2, 0]
    matches = torch.tensor([[k == text for text in range(3)] for k in shown])
    logits = (7.0 * images @ texts.T).tolist()

    to_text = 0.0
    for row, k in zip(logits, shown, strict=True):
        to_text -= math.log(math.exp(row[k]) / sum(map(math.exp, row))) / 5
    to_image = 0.0
    for text in range(3):
        total = sum(math.exp(row[text]) for row in logits)
        matching = [row[text] for row, k in zip(logits, shown, strict=True) if k == text]
        to_image -= sum(math.log(math.exp(value) / total) for value in matching) / len(matching) / 3
    loss = training.similarity_loss(images, texts, matches, torch.tensor(7.0).log())
    assert loss.item() == pytest.approx((to_text + to_image) / 2, rel=1e-5)


def test_a_saved_model_comes_back_through_the_teachers_path(tmp_path: Path) -> None:
    losses: list[float] = []
    model = training.train(steps=2, seed=3, report=lambda step, loss: losses.append(loss)).eval()
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    training.save(model, tmp_path / "tiny.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.npz"]
    loaded = demo.load(path=tmp_path / "tiny.npz")

    texts = ["a photo of a red fish", "something pink"]
    images = training.images_of([draw(index, 1) for index in range(36)])
    with torch.no_grad():
        expected_texts = model.encode_text(training.tokens_of(texts))  # context of 16, in place of 77
        expected = F.normalize(model.encode_image(Preprocess(32)(images)), dim=1)
    torch.testing.assert_close(loaded.embed_texts(texts), expected_texts, rtol=0.01, atol=0.01)
    embeddings = loaded.embed_images(images)
    torch.testing.assert_close(F.normalize(embeddings, dim=1), expected, rtol=0.01, atol=0.005)
    assert embeddings.norm(dim=1).mean().item() == pytest.approx(10, abs=0.5)


def test_the_script_refuses_zero_steps() -> None:
    result = CliRunner().invoke(training.main, ["--steps=0"])
    assert result.exit_code == 2
    assert "--steps" in result.output
