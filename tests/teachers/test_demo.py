"""The demo teacher knows its drawings, behaves as a teacher must, and its training script can make another one."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from experiments import train_demo_teacher as training
from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.teachers import demo, load_teacher, load_teachers
from kd_plugin.teachers.preprocess import Preprocess
from kd_plugin.teachers.protocol import Teacher
from training.drawings import Attributes, caption


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("demo")


@pytest.fixture(scope="module")
def held_out() -> training.Pool:
    return training.make_pool(600, training.HELD_OUT_SERIES)


@pytest.fixture(scope="module")
def images(held_out: training.Pool) -> torch.Tensor:
    return training.to_images(held_out.pixels)


def test_zero_shot_accuracy_on_held_out_drawings(
    teacher: Teacher, images: torch.Tensor, held_out: training.Pool
) -> None:
    accuracy = training.zero_shot(teacher, images, held_out.attributes)
    assert accuracy["kind"] >= 0.95
    assert min(accuracy.values()) >= 0.95, accuracy


def test_scrambled_it_knows_nothing(teacher: Teacher, images: torch.Tensor, held_out: training.Pool) -> None:
    ((_, scrambled),) = load_teachers("demo", control="scramble")
    assert max(training.zero_shot(scrambled, images, held_out.attributes).values()) < 0.6
    assert scrambled.fingerprint != teacher.fingerprint  # kept texts are those of one teacher
    embeddings = scrambled.embed_images(images)
    assert (embeddings - embeddings.mean(0)).norm() > 0.1 * embeddings.norm()  # images still differ to it
    ((_, again),) = load_teachers("demo", control="scramble")
    torch.testing.assert_close(again.embed_images(images), embeddings, rtol=0, atol=0)


def test_larger_drawings_are_known_too(teacher: Teacher) -> None:
    pool = training.make_pool(200, training.HELD_OUT_SERIES + 1, size=64)
    assert pool.pixels.shape == (200, 3, 32, 32)
    accuracy = training.zero_shot(teacher, training.to_images(pool.pixels), pool.attributes)
    assert min(accuracy.values()) >= 0.9, accuracy


def test_a_caption_finds_its_picture(teacher: Teacher, images: torch.Tensor, held_out: training.Pool) -> None:
    """Of 64 pictures, the one nearest to a full caption has the same attributes."""
    rows = held_out.attributes[:64].tolist()
    texts = [
        caption(training.attributes_of(row), random.Random(number).random, set(training.NAMES))
        for number, row in enumerate(rows)
    ]
    similarity = (
        F.normalize(teacher.embed_texts(texts), dim=1) @ F.normalize(teacher.embed_images(images[:64]), dim=1).T
    )
    right = [rows[best] == row for best, row in zip(similarity.argmax(1).tolist(), rows, strict=True)]
    assert np.mean(right) >= 0.95


def test_the_file_is_small_and_free_of_code() -> None:
    assert demo.WEIGHTS.stat().st_size < 1_000_000
    with np.load(demo.WEIGHTS, allow_pickle=False) as arrays:
        assert {arrays[name].dtype.name for name in arrays.files} == {"float16", "int32"}


def test_embeddings_have_clips_scale_and_the_teachers_shape(teacher: Teacher, images: torch.Tensor) -> None:
    embeddings = teacher.embed_images(images[:64])
    assert embeddings.shape == (64, teacher.embed_dim)
    assert embeddings.dtype == torch.float32
    assert embeddings.norm(dim=1).mean().item() == pytest.approx(10, abs=0.5)
    assert teacher.vocabulary is None


def test_its_context_is_short_and_the_message_says_so(teacher: Teacher) -> None:
    teacher.embed_texts(["a " * 13 + "cat"])  # 16 tokens with the two marks
    with pytest.raises(
        PromptError, match="has 17 tokens, start and end marks included; teacher 'demo' takes 16 at most"
    ):
        teacher.embed_texts(["a " * 14 + "cat"])


def test_words_it_never_saw_are_named(teacher: Teacher) -> None:
    assert teacher.unknown_words(["a photo of two owls at night"]) == []  # type: ignore[attr-defined]
    assert teacher.unknown_words(["a zebra and a cat", "a dog", "a zebra"]) == ["zebra", "and", "dog"]  # type: ignore[attr-defined]
    both = teacher.embed_texts(["a zebra", "a dog"])
    torch.testing.assert_close(both[0], both[1])  # which is why they are named


def test_the_embedding_is_differentiable_with_respect_to_the_image(teacher: Teacher, images: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    shown = (0.9 * images[:4]).requires_grad_()  # away from the clip
    direction = torch.randn(shown.shape, generator=generator)
    weights = torch.randn(4, teacher.embed_dim, generator=generator)
    (gradient,) = torch.autograd.grad((teacher.embed_images(shown) * weights).sum(), shown)
    with torch.no_grad():
        step = 1e-3
        high, low = (teacher.embed_images(shown + sign * step * direction).mul(weights).sum() for sign in (1, -1))
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


# How it was trained.


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


def test_a_picture_belongs_to_every_caption_that_is_true_of_it() -> None:
    shown = [
        Attributes("cat", "red", "sea", "one", "big"),
        Attributes("cat", "blue", "sea", "two", None),
        Attributes("owl", "red", "night", "one", "big"),
    ]
    rows = torch.tensor([training.rows_of(attributes) for attributes in shown])
    assert [training.attributes_of(row) for row in rows.tolist()] == shown
    matches = training.matches_of(rows, [{"kind"}, {"scene", "count"}, {"colour", "size"}])
    assert matches.tolist() == [[True, False, True], [True, True, False], [False, False, True]]


def test_captions_name_something_that_is_there() -> None:
    rng = random.Random(0)
    without_size = Attributes("cat", "red", "sea", "two", None)
    named = [training.choose_named(without_size, rng) for _ in range(500)]
    assert all(named)
    assert not any("size" in names for names in named)
    assert 0.2 < np.mean([names == {"kind", "colour", "scene", "count"} for names in named]) < 0.45


def test_a_saved_model_comes_back_through_the_teachers_path(tmp_path: Path, images: torch.Tensor) -> None:
    losses: list[float] = []
    pool = training.make_pool(64, training.TRAINING_SERIES)
    vocabulary = training.Vocabulary()
    model = training.train(pool, vocabulary, steps=2, seed=3, report=lambda step, loss: losses.append(loss)).eval()
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    training.save(model, vocabulary, tmp_path / "tiny.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.npz"]
    loaded = demo.load(path=tmp_path / "tiny.npz")

    texts = ["a photo of a red fish", "two small things at night"]
    with torch.no_grad():
        expected_texts = model.encode_text(vocabulary.encode(texts))
        expected = model.encode_image(Preprocess(32)(images[:36]))
    torch.testing.assert_close(loaded.embed_texts(texts), expected_texts, rtol=0.01, atol=0.01)
    torch.testing.assert_close(loaded.embed_images(images[:36]), expected, rtol=0.01, atol=0.02)


def test_the_script_refuses_zero_steps() -> None:
    result = CliRunner().invoke(training.main, ["--steps=0"])
    assert result.exit_code == 2
    assert "--steps" in result.output
