"""The demo family: deterministic, of one distribution, and showing what its captions say."""

from __future__ import annotations

import functools
import io
import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.errors import UserError
from kd_plugin.teachers.clip_package import openai_tokenizer
from training.drawings import (
    COLOURS,
    COUNTS,
    KINDS,
    SCENES,
    SIZES,
    Attributes,
    DemoSpec,
    caption,
    demo_set,
    draw,
    write_demo_set,
)
from training.drawings.captions import PLACES
from training.drawings.family import SERIES_LENGTH
from training.drawings.shapes import Canvas, box, capsule, circle, ellipse, polygon, union

# Per channel, of the 100 drawings of 32 x 32 that are --data=demo.
EXPECTED_MEAN = [134.9, 143.7, 144.3]
EXPECTED_STD = [80.0, 74.0, 73.2]


@functools.cache
def first_attributes() -> list[Attributes]:
    return [draw(number, size=4).attributes for number in range(400)]


def test_equal_arguments_equal_pixels() -> None:
    first = draw(5, series=3)
    draw(6, series=3)
    np.testing.assert_array_equal(draw(5, series=3).pixels, first.pixels)
    assert first.pixels.shape == (3, 32, 32)
    assert (draw(5, series=4).pixels != first.pixels).any()


def test_series_are_disjoint() -> None:
    """Series 1 begins where series 0 can no longer reach."""
    np.testing.assert_array_equal(draw(SERIES_LENGTH, series=0).pixels, draw(0, series=1).pixels)


def test_the_demo_set_is_pinned() -> None:
    """With a tolerance of half a level: the last bit of a float may differ between machines."""
    images = np.stack([draw(number).pixels for number in range(100)]).astype(float)
    np.testing.assert_allclose(images.mean((0, 2, 3)), EXPECTED_MEAN, atol=0.5)
    np.testing.assert_allclose(images.std((0, 2, 3)), EXPECTED_STD, atol=0.5)
    assert draw(7).attributes == Attributes("fish", "orange", "sea", "one", "big")


def test_the_100_are_varied() -> None:
    assert len({draw(number).attributes for number in range(100)}) >= 90


def test_every_value_has_its_share() -> None:
    drawn = [draw(number, series=5, size=4).attributes for number in range(1500)]
    for name, values in (("kind", KINDS), ("colour", COLOURS), ("scene", SCENES)):
        counts = Counter(getattr(attributes, name) for attributes in drawn)
        assert set(counts) == set(values)
        for count in counts.values():
            assert count == pytest.approx(1500 / len(values), rel=0.25)
    counts = Counter(attributes.count for attributes in drawn)
    assert {count: counts[count] / 1500 for count in COUNTS} == pytest.approx(
        {"one": 0.5, "two": 0.25, "three": 0.25}, abs=0.03
    )
    assert all((attributes.size in SIZES) == (attributes.count == "one") for attributes in drawn)


def test_the_same_picture_at_any_size() -> None:
    for number in range(12):
        large = draw(number, size=128).pixels.reshape(3, 32, 4, 32, 4).mean((2, 4))
        assert np.abs(large - draw(number).pixels).mean() < 8


@pytest.mark.parametrize("colour", COLOURS)
def test_a_figure_has_its_colour(colour: str) -> None:
    numbers = [n for n, attributes in enumerate(first_attributes()) if attributes.colour == colour]
    mean = np.mean([np.median(figure_pixels(n), axis=1) for n in numbers[:20]], axis=0)
    reference = {"red": 0, "green": 1, "blue": 2}
    if colour in reference:
        assert mean.argmax() == reference[colour]
    elif colour == "white":
        assert mean.min() > 150
    elif colour in ("orange", "yellow"):
        assert mean[2] == mean.min()
    else:
        assert mean[1] == mean.min()


def figure_pixels(number: int) -> np.ndarray:
    """[3, n]: the pixels that change when the figures are left away."""
    from training.drawings import family

    with_figures = family.draw(number).pixels
    stamp, family.stamp = family.stamp, lambda *_: None
    try:
        without = family.draw(number).pixels
    finally:
        family.stamp = stamp
    return with_figures[:, (np.abs(with_figures.astype(int) - without).sum(0) > 0)]


def test_captions_say_what_is_asked() -> None:
    owls = Attributes("owl", "red", "night", "two", None)
    first: list[float] = [0.0, 0.0]
    assert caption(owls, iter(first).__next__) == "two red owls at night"
    assert caption(owls, iter([0.99, 0.99]).__next__) == "a painting of two red owls under the moon"
    assert caption(owls, lambda: 0.0, {"colour"}) == "a red thing"
    assert caption(owls, lambda: 0.0, {"count"}) == "two things"
    one = Attributes("owl", "orange", "sea", "one", "small")
    assert caption(one, lambda: 0.0, {"kind", "size"}) == "a small owl"
    assert caption(one, lambda: 0.0, {"kind", "colour"}) == "an orange owl"
    assert caption(one, lambda: 0.0) == "one small orange owl in the sea"


def test_every_word_is_one_token_and_captions_are_short() -> None:
    tokenize = openai_tokenizer()
    captions = [caption(attributes, random.Random(n).random) for n, attributes in enumerate(first_attributes())]
    captions += [f"a thing {place}" for places in PLACES.values() for place in places]
    for text in captions:
        tokens = tokenize(text)
        assert len(tokens) == len(text.split()) + 2
        assert len(tokens) <= 13


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (lambda x, y: circle(x, y, 0.1, -0.2, 0.5), np.pi * 0.25),
        (lambda x, y: ellipse(x, y, -0.1, 0.1, 0.7, 0.4), np.pi * 0.28),
        (lambda x, y: box(x, y, 0, 0.1, 0.6, 0.3), 4 * 0.18),
        (lambda x, y: box(x, y, 0, 0.1, 0.6, 0.3, rounding=0.2), 4 * 0.18 - (4 - np.pi) * 0.04),
        (lambda x, y: capsule(x, y, (-0.4, -0.3), (0.4, 0.3), 0.2), 0.4 + np.pi * 0.04),
        (lambda x, y: polygon(x, y, [(-0.5, -0.5), (0.7, -0.5), (0.0, 0.8)]), 1.2 * 1.3 / 2),
        (lambda x, y: union(circle(x, y, -0.5, 0, 0.3), circle(x, y, 0.5, 0, 0.3)), 2 * np.pi * 0.09),
    ],
    ids=["circle", "ellipse", "box", "rounded box", "capsule", "polygon", "union"],
)
def test_a_shape_covers_its_area(shape, area: float) -> None:
    canvas = Canvas(256)
    canvas.paint(shape(canvas.x, canvas.y), (1.0, 0.0, 0.0))
    red, green, _ = canvas.pixels().astype(float) / 255
    assert red.mean() * 4 == pytest.approx(area, rel=0.01)  # the canvas has an area of 4
    assert green.max() == 0


def test_a_gradient_runs_up() -> None:
    canvas = Canvas(8)
    canvas.gradient((0, 0, 0), (1, 1, 1), low=-0.5, high=0.5)
    column = canvas.pixels()[0, :, 3]
    assert column[0] == 255
    assert column[-1] == 0
    assert (np.diff(column.astype(int)) <= 0).all()


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("demo", DemoSpec(100, 0)),
        ("demo:5000", DemoSpec(5000, 0)),
        ("demo:5000@7", DemoSpec(5000, 7)),
        ("demo@7", DemoSpec(100, 7)),
        ("demonstration", None),
        ("100-shot-obama", None),
    ],
)
def test_specs(text: str, spec: DemoSpec | None) -> None:
    assert DemoSpec.parse(text) == spec


@pytest.mark.parametrize("text", ["demo:", "demo:0", "demo:many", "demo:5@", "demo:-3", f"demo:{SERIES_LENGTH + 1}"])
def test_a_wrong_spec_says_the_form(text: str) -> None:
    with pytest.raises(UserError, match=f"--data: '{text}' is not a demo set; give demo, or demo:COUNT@SEED"):
        DemoSpec.parse(text)


def test_the_zip_has_stylegans_layout_and_our_two_keys(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "demo.zip"
    write_demo_set(path, DemoSpec(count=30, series=2))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        meta = json.loads(archive.read("dataset.json"))
        last = np.asarray(Image.open(io.BytesIO(archive.read("00000/img00000029.png"))))
    np.testing.assert_array_equal(last.transpose(2, 0, 1), draw(29, series=2).pixels)
    assert names == [f"00000/img{number:08d}.png" for number in range(30)] + ["dataset.json"]
    assert set(meta) == {"labels", "class_names", "captions"}
    assert meta["class_names"] == list(KINDS)
    drawn = [draw(number, series=2, size=4).attributes for number in range(30)]
    assert meta["labels"] == [
        [name, KINDS.index(attributes.kind)] for name, attributes in zip(names[:-1], drawn, strict=True)
    ]
    for (_, text), attributes in zip(meta["captions"], drawn, strict=True):
        assert attributes.colour in text


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "demo.zip"
    path.write_bytes(b"old")

    def interrupted(number: int, series: int, size: int) -> object:
        if number == 3:
            raise KeyboardInterrupt
        return draw(number, series, size)

    monkeypatch.setattr(demo_set, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_demo_set(path, DemoSpec())
    assert [file.name for file in tmp_path.iterdir()] == ["demo.zip"]
    assert path.read_bytes() == b"old"
