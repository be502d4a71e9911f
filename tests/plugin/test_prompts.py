"""Prompts: read, made from names, chosen by the images; embedded once."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.prompts import selection as telling
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.prompts.selection import select_prompts, shipped_vocabulary
from kd_plugin.prompts.sources import (
    TEMPLATES,
    choose_prompts,
    prompts_for_classes,
    prompts_for_subject,
    read_prompts,
)
from kd_plugin.prompts.subjects import subject_of, with_article


def test_bank_embeds_lazily_once_and_drops_duplicates(teacher):
    bank = PromptBank(["b", "a", "b", "c"], teacher)
    assert bank.texts == ("b", "a", "c")
    assert len(bank) == 3
    assert teacher.text_calls == 0
    embeddings = bank.embeddings()
    assert torch.equal(embeddings, teacher.embed_texts(["b", "a", "c"]))
    assert not embeddings.requires_grad
    teacher.text_calls = 0
    assert bank.embeddings("cpu") is embeddings
    assert teacher.text_calls == 0
    assert bank.embeddings("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "prompts=: no prompt was given"), ("a cat", "got the one text 'a cat'; write ['a cat'")],
)
def test_bank_refuses(teacher, texts, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        PromptBank(texts, teacher)


def test_bank_checks_the_teacher(teacher):
    teacher.embed_texts = lambda texts: torch.zeros(len(texts), 3)
    with pytest.raises(TeacherError, match=re.escape("text embeddings of the shape [1, 3]; expected [1, 6]")):
        PromptBank(["a"], teacher).embeddings()
    teacher.embed_texts = lambda texts: torch.full((len(texts), 6), float("nan"))
    with pytest.raises(TeacherError, match="text embeddings with NaN or infinity"):
        PromptBank(["a"], teacher).embeddings()


def test_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa photo of a café\r\n\n  # a comment\n a sketch \na sketch\n".encode())
    assert read_prompts(path) == ["a photo of a café", "a sketch"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no prompt; write one per line"),
        (b"\n# only a comment\n", "contains no prompt; write one per line"),
        ("a cat".encode("utf-16"), "is not UTF-8 text (invalid start byte at byte 0)"),
        (None, "(No such file or directory)"),
    ],
)
def test_file_errors_name_the_flag(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=re.escape(message)) as error:
        read_prompts(path)
    assert str(error.value).startswith("prompts=")
    assert str(path) in str(error.value)


def test_subject_templates():
    prompts = prompts_for_subject("grumpy cat")
    assert len(prompts) == len(set(prompts)) == len(TEMPLATES) == 16
    assert prompts[0] == "a photo of grumpy cat"
    assert all("grumpy cat" in prompt for prompt in prompts)


def test_class_prompts():
    assert prompts_for_classes(["cat", "airplane", "red_fox", "cat"]) == [
        "a photo of a cat",
        "a photo of an airplane",
        "a photo of a red fox",
    ]
    assert prompts_for_classes(["cat"]) == prompts_for_subject("cat")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "a dog"),
        ("Apple", "an Apple"),
        ("umbrella", "an umbrella"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("horse", "a horse"),
        ("a dog", "a dog"),
        ("the moon", "the moon"),
    ],
)
def test_articles(name, expected):
    assert with_article(name) == expected


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("100-shot-obama.zip", "obama"),
        ("100-shot-grumpy_cat", "grumpy cat"),
        ("100-shot-panda.tar.gz", "panda"),
        ("AnimalFace-dog", "dog"),
        ("AnimalFace-cat.zip", "cat"),
        ("golden-retriever-64-100shot", "golden retriever"),
        ("/data/sets/egyptian-cat-64-all.zip", "egyptian cat"),
        ("ffhq256x256", "human face"),
        ("ffhq-140k-256x256.zip", "human face"),
        ("afhqv2", "animal face"),
        ("afhqwild_512px", "wild animal"),
        ("celebahq-256", "human face"),
        ("lsun-bedroom_train", "bedroom"),
        ("GrumpyCat64", "grumpy cat"),
        ("few_shot_flowers_dataset", "flowers"),
    ],
)
def test_subject_read_from_the_name(name, subject):
    assert subject_of(name) == subject


@pytest.mark.parametrize("name", ["cifar10-5k-32.zip", "train_256", "", "dataset.zip"])
def test_a_name_without_a_subject(name):
    with pytest.raises(PromptError, match=re.escape(f"prompts=: the dataset's name '{name}' does not say what it")):
        subject_of(name)


def test_telling_texts_are_those_of_the_largest_unexplained_spread(make_teacher, images):
    """Against least squares: each text's cosines on those of the texts before it, what is left is its due."""
    vocabulary = tuple(f"word {i}" for i in range(20))
    teacher = make_teacher(vocabulary=vocabulary)
    batches = [images(1), images(2, 3)]
    embedded = [e for b in batches for e in teacher.embed_images(b)]

    def cosines(text):
        word = teacher.embed_texts([text])[0]
        return np.array([float(torch.cosine_similarity(e, word, dim=0)) for e in embedded])

    near = sorted(vocabulary, key=lambda text: cosines(text).mean(), reverse=True)[:8]
    expected = []
    for _ in range(4):

        def due(text):
            known = np.stack([np.ones(len(embedded)), *(cosines(other) for other in expected)], axis=1)
            fit = known @ np.linalg.lstsq(known, cosines(text), rcond=None)[0]
            return ((cosines(text) - fit) ** 2).sum()

        expected.append(max((text for text in near if text not in expected), key=due))
    assert select_prompts(teacher, batches, count=4, among=8) == expected
    assert expected != sorted(near, key=lambda text: cosines(text).var(), reverse=True)[:4]


def test_telling_ends_where_nothing_is_left(make_teacher, images):
    """4 images differ in 3 ways; images that are all the same in none, and two texts are the least."""
    teacher = make_teacher(vocabulary=tuple(f"word {i}" for i in range(20)))
    assert len(select_prompts(teacher, [images(1)])) == 3
    assert len(select_prompts(teacher, [images(1, 1).expand(5, -1, -1, -1)])) == 2


def test_auto_chooses_from_the_shipped_texts(teacher, images):
    chosen = choose_prompts(teacher, file="auto", class_names=["cat"], dataset_name="x", images=[images(1, 40)])
    assert chosen.source == "the 6 of the plug-in's 414 texts that tell the images apart"  # the teacher has 6 axes
    assert set(chosen.texts) < set(shipped_vocabulary())


def test_auto_leaves_out_texts_with_words_the_teacher_never_saw(images):
    from kd_plugin.teachers import load_teacher

    demo = load_teacher("demo")
    chosen = choose_prompts(demo, file="auto", class_names=None, dataset_name="x", images=[images(1, 40, size=32)])
    assert not demo.unknown_words(chosen.texts)
    assert "a photo of a cat" in telling.known_texts(demo)


def test_auto_needs_readable_texts(make_teacher, images):
    with pytest.raises(PromptError, match="prompts='auto': teacher 'fake' knows 1 of the texts"):
        select_prompts(make_teacher(vocabulary=("a",)), [images(1)])


def test_the_shipped_texts():
    texts = shipped_vocabulary()
    assert len(texts) == len(set(texts)) == 414
    assert all(text == text.strip() and len(text) < 60 for text in texts)


def test_telling_takes_grey_images(make_teacher, images):
    teacher = make_teacher(vocabulary=("a", "b", "c"))
    grey = images(1, channels=1)
    assert select_prompts(teacher, [grey]) == select_prompts(teacher, [grey.repeat(1, 3, 1, 1)])


def test_telling_needs_texts_and_images(make_teacher, images):
    with pytest.raises(PromptError, match="'fake' has no text encoder: set cgkd=0 and diversity=0"):
        select_prompts(make_teacher(vocabulary=()), [images(1)])
    with pytest.raises(PromptError, match="no image was given"):
        select_prompts(make_teacher(vocabulary=("a", "b")), [])


def test_choice_in_order(teacher, make_teacher, images, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("one\ntwo\n")
    knows = make_teacher(vocabulary=("a", "b", "c"))
    rest = {"class_names": ["cat", "dog"], "dataset_name": "100-shot-obama.zip", "images": [images(1)]}

    chosen = choose_prompts(knows, file=file, **rest)
    assert chosen.texts == ("one", "two")
    assert chosen.source == f"2 prompts from '{file}'"

    chosen = choose_prompts(knows, file=None, **rest)
    assert sorted(chosen.texts) == ["a", "b", "c"]
    assert chosen.source == "the 3 of the teacher's 3 texts that tell the images apart"

    chosen = choose_prompts(teacher, file=None, **rest)
    assert chosen.texts == ("a photo of a cat", "a photo of a dog")
    assert chosen.source == "2 prompts from the dataset's class names"

    chosen = choose_prompts(teacher, file=None, **{**rest, "class_names": None})
    assert chosen.texts == tuple(prompts_for_subject("obama"))
    assert chosen.source == "16 templates over 'obama', read from the dataset's name"
    assert not teacher.calls, "without a vocabulary the images are not needed"
