"""Labels as people write them: taken where the meaning is plain, refused by name and value where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnlib.errors import UserError
from training.data.labels import classes_by_folder, parse_labels, read_meta

NAMES = ["a/0.png", "a/1.png", "b/2.png"]
PATH = Path("pets.zip")


def content(labels: Any, encoding: str = "utf-8", **keys: Any) -> bytes:
    return json.dumps({"labels": labels, **keys}).encode(encoding)


def table(*values: Any) -> list[list[Any]]:
    return [[name, value] for name, value in zip(NAMES, values, strict=False)]


@pytest.mark.parametrize(
    ("raw", "classes"),
    [
        (content(table(0, 2, 1)), [0, 2, 1]),
        (content(table(0.0, 2.0, 1.0)), [0, 2, 1]),
        (content(table("0", "2", " 1")), [0, 2, 1]),
        (content(table(0, 2, 1), "utf-8-sig"), [0, 2, 1]),
        (content(table(0, 2, 1), "utf-16"), [0, 2, 1]),
        (content(dict.fromkeys(NAMES, 1)), [1, 1, 1]),
        (content([[name.replace("/", "\\"), 1] for name in NAMES]), [1, 1, 1]),
        (content([["./" + name, 1] for name in NAMES]), [1, 1, 1]),
        (content([*table(0, 2, 1), ["elsewhere.png", 9], ["a/0.png", 0]]), [0, 2, 1]),  # of no image; twice the same
    ],
    ids=["int", "float", "text", "mark", "UTF-16", "object", "backslash", "dot", "extra"],
)
def test_classes(raw: bytes, classes: list[int]) -> None:
    labels = parse_labels(read_meta(raw, PATH), NAMES, PATH)
    assert labels.values.tolist() == classes
    assert labels.values.dtype == np.int64
    assert labels.width == max(classes) + 1
    assert labels.names is None


def test_names_as_labels() -> None:
    labels = parse_labels(read_meta(content(table("dog", "cat", "dog")), PATH), NAMES, PATH)
    assert (labels.values.tolist(), labels.names, labels.width) == ([1, 0, 1], ["cat", "dog"], 2)
    meta = read_meta(content(table("dog", "cat", "dog"), class_names=["dog", "cow", "cat"]), PATH)
    labels = parse_labels(meta, NAMES, PATH)
    assert (labels.values.tolist(), labels.width) == ([0, 2, 0], 3)


def test_vectors() -> None:
    labels = parse_labels(read_meta(content(table([0.5, 1], [2, 3], [4, 5])), PATH), NAMES, PATH)
    np.testing.assert_array_equal(labels.values, np.array([[0.5, 1], [2, 3], [4, 5]], np.float32))
    assert labels.width == 2


@pytest.mark.parametrize(
    ("labels", "keys", "message"),
    [
        (None, {}, "has no labels in its dataset.json"),
        (table(0, 1), {}, "1 images of 'pets.zip' have no label, such as 'b/2.png'"),
        (table(0, 1, None), {}, "1 images of 'pets.zip' have no label, such as 'b/2.png'"),
        (table(0, 1.5, 1), {}, "'a/1.png' in 'pets.zip' has the label 1.5; labels must be class numbers from 0 up"),
        (table(0, True, 1), {}, "'a/1.png' in 'pets.zip' has the label True"),
        (table(0, -1, 1), {}, "'a/1.png' in 'pets.zip' has the label -1"),
        (table(0, "cat", 1), {}, "'a/1.png' in 'pets.zip' has the label 'cat'"),
        (table(0, [1], 1), {}, r"'a/1.png' in 'pets.zip' has the label \[1\]"),
        (table(0, 10**12, 1), {}, "'a/1.png' in 'pets.zip' has the label 1000000000000; number the classes from 0 up"),
        (table([1, 2], [1], [3, 4]), {}, "the labels of 'pets.zip' differ in length or are empty: 1, 2"),
        (table([], [], []), {}, "the labels of 'pets.zip' differ in length or are empty: 0"),
        (table(["x"], ["y"], ["z"]), {}, "the labels of 'pets.zip' must all be vectors of finite numbers"),
        (table([[1]], [[1]], [[1]]), {}, "the labels of 'pets.zip' must all be vectors of finite numbers"),
        (table(0, 2, 1), {"class_names": ["a", "b"]}, "has 2 class_names but labels of 3 classes"),
        (table("a", "c", "b"), {"class_names": ["a", "b"]}, "has the label 'c', which is none of its class_names"),
    ],
)
def test_labels_that_mean_nothing(labels: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^--cond: .*{message}"):
        parse_labels(read_meta(content(labels, **keys), PATH), NAMES, PATH)


def test_one_image_with_two_labels() -> None:
    with pytest.raises(UserError, match=r"'a/0\.png' stands in it twice, with 0 and 1"):
        read_meta(content([["a/0.png", 0], ["a\\0.png", 1]]), PATH)


def test_no_json_means_nothing() -> None:
    meta = read_meta(b"", PATH)
    assert (meta.labels, meta.class_names, meta.captions) == ({}, None, {})


def test_folders_as_classes() -> None:
    labels = classes_by_folder(["dog/x/1.png", "cat/1.png", "dog/2.png"])
    assert labels is not None
    assert (labels.values.tolist(), labels.names) == ([1, 0, 1], ["cat", "dog"])
    assert classes_by_folder(["dog/1.png", "dog/2.png"]) is None
    assert classes_by_folder(["dog/1.png", "cat/1.png", "2.png"]) is None
