"""The demo set: deterministic, complete, and showing what its captions say."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from training import demo_drawings
from training.demo_drawings import COLOURS, SUBJECTS, draw, write_demo_set

# Of the 100 drawings of 32 x 32: per channel, and the SHA-256 of their pixels.
EXPECTED_MEAN = [206.5, 205.9, 203.3]
EXPECTED_STD = [48.3, 51.8, 56.4]
EXPECTED_DIGEST = "86811c8d19ed38ff2823e3d5edade116ab9f8f3ec2118aeb22fa8dc9ce3d0473"


def pixels(index: int, seed: int = 0, size: int = 32) -> np.ndarray:
    return np.asarray(draw(index, seed, size).image)


def test_a_drawing_depends_on_index_and_seed_alone() -> None:
    first = pixels(5, seed=3)
    draw(6, seed=3)
    np.testing.assert_array_equal(pixels(5, seed=3), first)
    assert (pixels(5, seed=4) != first).any()
    assert (pixels(5 + 36, seed=3) != first).any()  # the same caption, another drawing


def test_36_drawings_show_every_pair_once() -> None:
    captions = {draw(index, seed=9).caption for index in range(50, 86)}
    assert captions == {f"a drawing of a {colour} {subject}" for colour in COLOURS for subject in SUBJECTS}


def test_the_label_is_the_subject() -> None:
    for index in range(12):
        drawing = draw(index)
        assert list(SUBJECTS)[drawing.label] == drawing.subject


def test_most_of_the_strong_colour_is_the_captions() -> None:
    palette = np.array(list(COLOURS.values()), dtype=float)
    for index in range(72):
        drawing = draw(index, seed=1)
        rgb = np.asarray(drawing.image).reshape(-1, 3).astype(float)
        strong = rgb[np.ptp(rgb, axis=1) > 80]  # backgrounds and details are pale, grey or brown
        nearest = np.linalg.norm(strong[:, None] - palette, axis=2).argmin(axis=1)
        assert list(COLOURS)[np.bincount(nearest).argmax()] == drawing.colour, drawing.caption


def test_the_same_picture_at_any_size() -> None:
    for index in range(6):
        large = np.asarray(draw(index, size=128).image.reduce(4)).astype(float)
        assert np.abs(large - pixels(index)).mean() < 4


def test_coarse_statistics_of_the_demo_set() -> None:
    images = np.stack([pixels(index) for index in range(100)]).astype(float)
    np.testing.assert_allclose(images.mean((0, 1, 2)), EXPECTED_MEAN, atol=1)
    np.testing.assert_allclose(images.std((0, 1, 2)), EXPECTED_STD, atol=1)


@pytest.mark.skipif(PIL.__version__ != "13.0.0", reason="how PIL fills polygons may differ between versions")
def test_the_pixels_of_the_demo_set_are_pinned() -> None:
    digest = hashlib.sha256(b"".join(pixels(index).tobytes() for index in range(100)))
    assert digest.hexdigest() == EXPECTED_DIGEST


def test_the_zip_has_stylegans_layout_and_our_two_keys(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "demo.zip"
    write_demo_set(path, count=100)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        meta = json.loads(archive.read("dataset.json"))
        last = Image.open(io.BytesIO(archive.read("00000/img00000099.png")))
        np.testing.assert_array_equal(np.asarray(last), pixels(99))
    assert names == [f"00000/img{index:08d}.png" for index in range(100)] + ["dataset.json"]
    assert set(meta) == {"labels", "class_names", "captions"}
    assert meta["class_names"] == ["fish", "house", "tree", "flower", "boat", "mushroom"]
    assert meta["labels"] == [[name, index % 6] for index, name in enumerate(names[:-1])]
    assert meta["captions"] == [[name, draw(index).caption] for index, name in enumerate(names[:-1])]
    assert meta["captions"][0][1] == "a drawing of a red fish"


def test_the_zip_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in "ab":
        write_demo_set(tmp_path / name, count=8)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_demo_set(tmp_path / "b", count=8, seed=1)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "demo.zip"
    path.write_bytes(b"old")

    def interrupted(index: int, seed: int, size: int) -> demo_drawings.Drawing:
        if index == 3:
            raise KeyboardInterrupt
        return draw(index, seed, size)

    monkeypatch.setattr(demo_drawings, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_demo_set(path)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.zip"]
    assert path.read_bytes() == b"old"
