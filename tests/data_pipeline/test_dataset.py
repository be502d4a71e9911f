"""Zips and folders of images: what is read, in which order, and what the user is told when it cannot be."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dnnlib.errors import UserError
from training.data.dataset import ImageDataset
from training.data.decoding import decode_image

Contents = Mapping[str, bytes]


def noise(seed: int, width: int = 8, height: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: np.ndarray | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def write_zip(path: Path, contents: Contents, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, contents: Contents) -> Path:
    for name, content in contents.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def pngs(count: int, **size: int) -> dict[str, bytes]:
    return {f"{k // 4:05d}/img{k:08d}.png": encoded(noise(k, **size)) for k in range(count)}


def meta(**keys: Any) -> dict[str, bytes]:
    return {"dataset.json": json.dumps(keys).encode()}


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize("kept", [True, False], ids=["in memory", "decoded at each use"])
def test_pixels_are_those_of_the_files_in_the_order_of_their_names(
    write: Callable[..., Path], kept: bool, tmp_path: Path
) -> None:
    contents = {
        "z.png": encoded(noise(1)),
        "b/a.PNG": encoded(noise(2)),
        "a/deep/x.bmp": encoded(noise(3), "BMP"),
        "a/.hidden.png": b"not an image",
        ".cache/y.png": b"not an image",
        "__MACOSX/z.png": b"not an image",
        "notes.txt": b"not an image",
    }
    dataset = ImageDataset(write(tmp_path / "pets.zip", contents), memory_limit=1 << 20 if kept else 0)
    assert (dataset.raw_length, len(dataset), dataset.resolution, dataset.num_channels) == (3, 3, 8, 3)
    assert dataset.fits_in_memory is kept
    for index, seed in enumerate([3, 2, 1]):
        pixels, label = dataset[index]
        np.testing.assert_array_equal(pixels, noise(seed).transpose(2, 0, 1))
        assert (pixels.dtype, label.shape, label.dtype) == (np.uint8, (0,), np.float32)
    with pytest.raises(IndexError):
        dataset[3]


def test_a_deflated_zip_reads_like_a_stored_one(tmp_path: Path) -> None:
    stored = ImageDataset(write_zip(tmp_path / "a.zip", pngs(3)))
    deflated = ImageDataset(write_zip(tmp_path / "b.zip", pngs(3), zipfile.ZIP_DEFLATED))
    for index in range(3):
        np.testing.assert_array_equal(stored[index][0], deflated[index][0])


def test_every_kind_of_image_becomes_rgb() -> None:
    rgb = noise(0)
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(decode_image(encoded(grey)), np.repeat(grey[:, :, None], 3, 2))
    deep = encoded(Image.fromarray((grey.astype(np.uint16) << 8) + 77))
    np.testing.assert_array_equal(decode_image(deep), np.repeat(grey[:, :, None], 3, 2))

    palette = Image.fromarray(rgb).quantize(16)
    np.testing.assert_array_equal(decode_image(encoded(palette)), np.asarray(palette.convert("RGB")))

    clear = np.dstack([rgb, np.full((8, 8), 255, np.uint8)])
    clear[:4, :, 3] = 0
    seen = decode_image(encoded(clear))
    assert (seen[:4] == 255).all()  # white shows through
    np.testing.assert_array_equal(seen[4:], rgb[4:])

    smooth = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    assert decode_image(encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG")).shape == (8, 8, 3)


def test_the_cameras_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    np.testing.assert_array_equal(decode_image(encoded(noise(0), exif=exif)), np.rot90(noise(0), -1))


def test_resolution_crops_the_centre_and_resizes(tmp_path: Path) -> None:
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = (10, 200, 90)  # exactly the central square
    contents = {"a.png": encoded(wide), "b.png": encoded(noise(1, 8, 8))}
    dataset = ImageDataset(write_zip(tmp_path / "mixed.zip", contents), resolution=8)
    assert (dataset[0][0] == np.array([10, 200, 90])[:, None, None]).all()
    np.testing.assert_array_equal(dataset[1][0], noise(1, 8, 8).transpose(2, 0, 1))  # of the size already: untouched
    smaller = np.asarray(Image.fromarray(noise(1, 8, 8)).resize((4, 4), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(decode_image(contents["b.png"], 4), smaller)


def test_mirror_adds_the_flipped_images_behind_the_others(tmp_path: Path) -> None:
    labels = [[name, k] for k, name in enumerate(pngs(3))]
    path = write_zip(tmp_path / "a.zip", {**pngs(3), **meta(labels=labels, captions=[[labels[1][0], "two"]])})
    dataset = ImageDataset(path, mirror=True, use_labels=True)
    assert len(dataset) == 6
    assert dataset.captions == ["", "two", "", "", "two", ""]
    for index in range(3):
        np.testing.assert_array_equal(dataset[index + 3][0], dataset[index][0][:, :, ::-1])
        np.testing.assert_array_equal(dataset[index + 3][1], dataset[index][1])
    pixels, _ = dataset.gather(np.array([4, 1, 5]))
    np.testing.assert_array_equal(pixels, np.stack([dataset[i][0] for i in (4, 1, 5)]))


def test_class_labels_become_one_hot(tmp_path: Path) -> None:
    names = list(pngs(4))
    labels = [[name, k] for name, k in zip(reversed(names), (0, 2, 2, 1), strict=True)]  # the list's order is free
    keys = {"labels": labels, "class_names": ["ant", "bee", "cat", "dog"]}
    path = write_zip(tmp_path / "a.zip", {**pngs(4), **meta(**keys)})
    dataset = ImageDataset(path, use_labels=True)
    assert dataset.class_names == ["ant", "bee", "cat", "dog"]
    assert (dataset.label_dim, dataset.has_labels) == (4, True)
    np.testing.assert_array_equal(dataset.labels_at(np.arange(len(dataset))), np.eye(4, dtype=np.float32)[[1, 2, 2, 0]])
    np.testing.assert_array_equal(dataset[1][1], dataset.label(1))

    plain = ImageDataset(path)
    assert (plain.label_dim, plain.has_labels, plain.label(0).shape) == (0, False, (0,))
    assert plain.class_names == ["ant", "bee", "cat", "dog"]  # still good for prompts


def test_vector_labels_stay_as_they_are(tmp_path: Path) -> None:
    vectors = {name: [k / 2, -1.0] for k, name in enumerate(pngs(3))}
    dataset = ImageDataset(
        write_zip(tmp_path / "a.zip", {**pngs(3), **meta(labels=list(vectors.items()))}), use_labels=True
    )
    np.testing.assert_array_equal(dataset.labels_at(np.arange(len(dataset))), [[0, -1], [0.5, -1], [1, -1]])


def test_subset_draws_the_images_that_official_runs_draw(tmp_path: Path) -> None:
    labels = [[name, k] for k, name in enumerate(pngs(10))]
    path = write_zip(tmp_path / "a.zip", {**pngs(10), **meta(labels=labels)})
    dataset = ImageDataset(path, use_labels=True, max_size=4, seed=3)
    order = np.arange(10)
    np.random.RandomState(3).shuffle(order)
    expected = sorted(order[:4])
    assert (dataset.raw_length, len(dataset), dataset.label_dim) == (10, 4, 10)
    assert [int(dataset.label(i).argmax()) for i in range(4)] == expected
    for i, number in enumerate(expected):
        np.testing.assert_array_equal(dataset[i][0], noise(int(number)).transpose(2, 0, 1))


def test_images_come_as_floats_from_minus_one_to_one(tmp_path: Path) -> None:
    dataset = ImageDataset(write_zip(tmp_path / "a.zip", pngs(5)))
    batches = list(dataset.images(limit=4, batch=3))
    assert [len(batch) for batch in batches] == [3, 1]
    expected = noise(0).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(batches[0][0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_pickled_copy_reads_the_same_pixels(write: Callable[..., Path], limit: int, tmp_path: Path) -> None:
    dataset = ImageDataset(write(tmp_path / "a", pngs(3)), memory_limit=limit)
    before = dataset[2][0]
    blob = pickle.dumps(dataset)
    assert len(blob) < 5000  # no pixels travel
    np.testing.assert_array_equal(pickle.loads(blob)[2][0], before)


def test_threads_decode_the_same_pixels(tmp_path: Path) -> None:
    dataset = ImageDataset(write_zip(tmp_path / "a.zip", pngs(20)), memory_limit=0)
    indices = np.arange(20)[::-1].copy()
    np.testing.assert_array_equal(dataset.gather(indices, threads=4)[0], dataset.gather(indices)[0])


def test_fingerprint_tells_datasets_apart_and_not_their_packing(tmp_path: Path) -> None:
    base = {**pngs(4), **meta(labels=None)}
    path = write_zip(tmp_path / "a.zip", base)
    same = {
        ImageDataset(path).fingerprint,
        ImageDataset(write_folder(tmp_path / "unpacked", base)).fingerprint,
        ImageDataset(write_zip(tmp_path / "deflated.zip", base, zipfile.ZIP_DEFLATED)).fingerprint,
        ImageDataset(shutil.copy(path, tmp_path / "renamed.zip")).fingerprint,
    }
    assert len(same) == 1
    first = next(iter(pngs(1)))
    others = {
        ImageDataset(path, mirror=True).fingerprint,
        ImageDataset(path, resolution=4).fingerprint,
        ImageDataset(path, max_size=2).fingerprint,
        ImageDataset(path, max_size=2, seed=3).fingerprint,
        ImageDataset(write_zip(tmp_path / "1.zip", {**base, first: encoded(noise(99))})).fingerprint,
        ImageDataset(write_zip(tmp_path / "2.zip", {**base, "new.png": encoded(noise(9))})).fingerprint,
        ImageDataset(write_zip(tmp_path / "3.zip", {**base, **meta(labels=[])})).fingerprint,
    }
    assert len(others | same) == 8


# What the user is told.


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        ImageDataset(path, **options).preload()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_path(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.zip") == f"--data: '{tmp_path / 'no.zip'}' does not exist"


def test_damaged_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pngs(4))
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path).startswith(f"--data: cannot read '{path}' (")
    path.write_bytes(b"hello")
    assert "File is not a zip file); expected a folder or a zip of images" in refusal(path)


def test_no_images(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"readme.txt": b"", ".x.png": b""})
    assert refusal(path).startswith(f"--data: '{path}' holds no images (.png .jpg ")
    assert "holds no images" in refusal(write_folder(tmp_path / "folder", {"readme.txt": b""}))


def test_encrypted_or_oddly_compressed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pngs(1), zipfile.ZIP_LZMA)
    assert "'00000/img00000000.png' is encrypted or neither stored nor deflated" in refusal(path)


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_an_unreadable_image_is_named(cut: int, tmp_path: Path) -> None:
    contents = {**pngs(3), "bad.png": encoded(noise(5))[:-cut]}
    path = write_zip(tmp_path / "a.zip", contents)
    assert refusal(path).startswith(f"--data: cannot read image 'bad.png' in '{path}' (")
    folder = write_folder(tmp_path / "folder", {**pngs(3), "sub/bad.jpg": b""})
    assert "cannot read image 'sub/bad.jpg'" in refusal(folder)


def test_all_unreadable_images_are_named_at_once(tmp_path: Path) -> None:
    """Whether the header or only the pixels are damaged."""
    contents = {**pngs(3), "b.png": encoded(noise(5))[:-60], "a.png": b"", "c.jpg": b"<html>"}
    folder = write_folder(tmp_path / "folder", contents)
    message = refusal(folder)
    assert message.startswith(
        f"--data: cannot read 3 images in '{folder}': 'a.png' (damaged, or not an image); 'b.png' ("
    )
    assert message.endswith("; 'c.jpg' (damaged, or not an image)")
    many = {f"{number:02d}.png": b"" for number in range(30)}
    message = refusal(write_folder(tmp_path / "many", many))
    assert message.startswith("--data: cannot read 30 images in '")
    assert message.endswith("'19.png' (damaged, or not an image); and 10 more")


def test_a_flipped_bit_in_the_zip_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.bmp": encoded(noise(0), "BMP"), "b.bmp": encoded(noise(1), "BMP")})
    content = bytearray(path.read_bytes())
    place = bytes(content).index(encoded(noise(1), "BMP")) + 100  # a pixel: Pillow would not mind
    content[place] ^= 1
    path.write_bytes(bytes(content))
    assert "cannot read image 'b.bmp'" in refusal(path)
    assert "wrong checksum" in refusal(path)


def test_mixed_sizes_offer_resolution(tmp_path: Path) -> None:
    contents = {**pngs(3, width=32, height=32), "x.png": encoded(noise(7, 48, 20)), "y.png": encoded(noise(8, 64, 64))}
    path = write_zip(tmp_path / "a.zip", contents)
    assert refusal(path) == (
        f"--data: the images of '{path}' must be square, of one size, a power of two of at least 4; found "
        "3 of 32x32, such as '00000/img00000000.png'; 1 of 48x20, such as 'x.png'; 1 of 64x64, such as 'y.png'. "
        "--resolution=32 crops and resizes them"
    )


def test_one_size_that_is_no_power_of_two(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "a", pngs(2, width=100, height=100))
    message = refusal(path)
    assert "found 2 of 100x100, such as '00000/img00000000.png'." in message
    assert "--resolution=64" in message
    assert ImageDataset(path, resolution=64).resolution == 64


def test_a_size_beyond_the_sample_is_found_when_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.dataset.CHECKED_AT_START", 2)
    path = write_zip(tmp_path / "a.zip", {**pngs(3), "00000/img00000000a.png": encoded(noise(0, 16, 16))})
    dataset = ImageDataset(path, memory_limit=0)
    with pytest.raises(UserError, match=r"found 1 of 16x16, such as '00000/img00000000a\.png'\."):
        dataset.gather(np.arange(4))


@pytest.mark.parametrize("resolution", [0, 2, 48, -8])
def test_resolution_must_be_a_power_of_two(resolution: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pngs(1))
    assert (
        refusal(path, resolution=resolution)
        == f"--resolution: expected a power of two from 4 to 16384, got {resolution}"
    )


@pytest.mark.parametrize("size", [0, 5, -1])
def test_subset_must_fit(size: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pngs(4))
    assert refusal(path, max_size=size) == f"--subset: expected 1 to 4, the number of images, got {size}"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (None, "has no labels in its dataset.json; add them, keep one folder per class .*, or give --cond=false"),
        ({"labels": None}, "has no labels in its dataset.json"),
        ({"labels": [["00000/img00000000.png", 0]]}, "1 images of .* have no label, such as '00000/img00000001.png'"),
        ({"labels": [["00000/img00000000.png", [1, 2]], ["00000/img00000001.png", [1]]]}, "differ in length"),
        ({"labels": [["00000/img00000000.png", 0], ["00000/img00000001.png", -1]]}, "class numbers from 0 up"),
        ({"labels": [["00000/img00000000.png", 0], ["00000/img00000001.png", "cat"]]}, "class numbers from 0 up"),
        (
            {"labels": [["00000/img00000000.png", 0], ["00000/img00000001.png", 2]], "class_names": ["a", "b"]},
            "has 2 class_names but labels of 3 classes",
        ),
    ],
)
def test_unusable_labels(keys: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {**pngs(2), **(meta(**keys) if keys is not None else {})})
    with pytest.raises(UserError, match=f"^--cond: .*{message}"):
        ImageDataset(path, use_labels=True)
    assert len(ImageDataset(path)) == 2  # without --cond they do not matter


@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b'{"labels": 5}', b'{"captions": ["x"]}', b"\xff\xfe\x00"])
def test_broken_dataset_json(content: bytes, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {**pngs(1), "dataset.json": content})
    assert refusal(path).startswith(f"--data: dataset.json in '{path}' cannot be read (")


def test_the_grid_that_generate_writes_is_no_image(tmp_path: Path) -> None:
    images = {f"seed{seed:04d}.png": encoded(noise(seed)) for seed in range(4)}
    grid = {"grid.png": encoded(noise(9, 16, 16))}
    for path in (write_folder(tmp_path / "out", images | grid), write_zip(tmp_path / "out.zip", images | grid)):
        dataset = ImageDataset(path)
        assert (len(dataset), dataset.raw_length, dataset.resolution) == (4, 4, 8)
        assert [dataset.file_name(k) for k in range(4)] == list(images)
        assert dataset.skipped == {"grid of generate.py": 1}
        np.testing.assert_array_equal(dataset[3][0], noise(3).transpose(2, 0, 1))
    other = ImageDataset(write_folder(tmp_path / "other", {"grid.png": encoded(noise(9)), "a.png": encoded(noise(1))}))
    assert (len(other), other.skipped) == (2, {})
    below = {f"a/{name}": content for name, content in (images | grid).items()}
    assert len(ImageDataset(write_folder(tmp_path / "below", below | {"grid.png": encoded(noise(5))}))) == 5


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "twice.zip", pngs(3))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[1], encoded(noise(7)))
    assert f"it holds 2 members called '{list(pngs(3))[1]}'; zip the folder anew" in refusal(path)


def test_images_that_repeat_others(tmp_path: Path) -> None:
    images = {f"{k}.png": encoded(noise(k % 4)) for k in range(6)}  # 4 and 5 show what 0 and 1 show
    images["3.png"] = encoded(noise(3), "PNG", compress_level=0)
    dataset = ImageDataset(write_folder(tmp_path / "a", images), mirror=True)
    assert dataset.repeated == [("4.png", "0.png"), ("5.png", "1.png")]
    assert ImageDataset(write_folder(tmp_path / "b", pngs(5))).repeated == []
