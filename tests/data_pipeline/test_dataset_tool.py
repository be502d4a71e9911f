"""dataset_tool.py: every kind of source, the zip it writes, and what it says of wrong ones."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dataset_tool import main
from training.data import convert as converting
from training.data.convert import choose, work_folder
from training.data.dataset import ImageDataset

rng = np.random.default_rng(0)


def tool(*given: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in given])


def converted(source: Path, dest: Path, *flags: str) -> dict[str, Any]:
    """dataset.json of the zip."""
    result = tool("convert", f"--source={source}", f"--dest={dest}", *flags)
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile(dest) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        meta: dict[str, Any] = json.loads(archive.read("dataset.json"))
    assert not work_folder(dest).exists()
    return meta


def pixels(dest: Path, number: int) -> np.ndarray:
    with zipfile.ZipFile(dest) as archive, archive.open(f"00000/img{number:08d}.png") as file:
        return np.asarray(Image.open(file))


def picture(path: Path, height: int = 16, width: int = 16) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: np.ndarray = rng.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes by folder, captions beside some images, other files."""
    root = tmp_path / "photos"
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png"):
        picture(root / name)
    (root / "cats/a.txt").write_text("a grey cat\n")
    (root / "notes.md").write_text("x")
    return root


def test_a_folder(folder: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out.zip"
    meta = converted(folder, dest, "--list")
    names = [f"00000/img{number:08d}.png" for number in range(3)]
    assert meta == {
        "labels": [[names[0], 0], [names[1], 0], [names[2], 1]],
        "class_names": ["cats", "dogs"],
        "captions": [[names[0], "a grey cat"]],
    }
    assert np.array_equal(pixels(dest, 2), np.asarray(Image.open(folder / "dogs/c.png")))
    assert dest.with_suffix(".txt").read_text().split() == ["cats/a.png", "cats/b.png", "dogs/c.png"]
    dataset = ImageDataset(dest, use_labels=True)
    assert dataset.class_names == ["cats", "dogs"]
    assert dataset.captions == ["a grey cat", "", ""]
    again = converted(dest, tmp_path / "again.zip")  # what it wrote, it reads
    assert again == meta


def test_no_labels(folder: Path, tmp_path: Path) -> None:
    assert converted(folder, tmp_path / "out.zip", "--labels=false")["labels"] is None


def test_resizing_is_the_trainers(tmp_path: Path) -> None:
    """--resolution here and in train.py give the same pixels."""
    for number, size in enumerate(((40, 70), (33, 32), (16, 16))):
        picture(tmp_path / "in" / f"{number}.png", *size)
    converted(tmp_path / "in", tmp_path / "out.zip", "--resolution=16")
    here, there = ImageDataset(tmp_path / "out.zip"), ImageDataset(tmp_path / "in", resolution=16)
    for number in range(3):
        assert np.array_equal(here[number][0], there[number][0])


def test_box_filter_and_no_crop(tmp_path: Path) -> None:
    image = picture(tmp_path / "in" / "a.png", 32, 64)
    converted(tmp_path / "in", tmp_path / "box.zip", "--resolution=16", "--filter=box")
    means = image[:, 16:48].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(pixels(tmp_path / "box.zip", 0) - means).max() <= 1
    converted(tmp_path / "in", tmp_path / "whole.zip", "--resolution=16", "--filter=box", "--crop=false")
    means = image.reshape(16, 2, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(pixels(tmp_path / "whole.zip", 0) - means).max() <= 1


def cifar(root: Path, hundred: bool = False) -> tuple[np.ndarray, list[int]]:
    """An archive as it is published, with few images; pickled as by Python 2, with texts as bytes."""
    data: np.ndarray = rng.integers(0, 256, (50, 3072), np.uint8)
    labels = rng.integers(0, 10, 50).tolist()
    key = b"fine_labels" if hundred else b"labels"
    parts = (
        [("train", slice(0, 50))]
        if hundred
        else [(f"data_batch_{n + 1}", slice(10 * n, 10 * n + 10)) for n in range(5)]
    )
    files = {name: {b"data": data[part], key: labels[part]} for name, part in parts}
    files["test" if hundred else "test_batch"] = {b"data": data[:4], key: labels[:4]}
    names = [f"class_{number}".encode() for number in range(10)]
    files["meta" if hundred else "batches.meta"] = {b"fine_label_names" if hundred else b"label_names": names}
    with tarfile.open(root, "w:gz") as archive:
        for name, content in files.items():
            packed = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-batches-py/{name}")
            info.size = len(packed)
            archive.addfile(info, io.BytesIO(packed))
    return data, labels


@pytest.mark.parametrize("hundred", [False, True])
def test_cifar(hundred: bool, tmp_path: Path) -> None:
    archive, dest = tmp_path / "cifar-python.tar.gz", tmp_path / "out.zip"
    data, labels = cifar(archive, hundred)
    meta = converted(archive, dest)
    assert [label for _, label in meta["labels"]] == labels
    assert meta["class_names"][3] == "class 3"
    assert np.array_equal(pixels(dest, 37), data[37].reshape(3, 32, 32).transpose(1, 2, 0))
    test = converted(archive, tmp_path / "test.zip", "--split=test")
    assert len(test["labels"]) == 4
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    assert converted(tmp_path / "unpacked", tmp_path / "folder.zip") == meta


def test_the_subsets_of_cifar_are_diffaugments(tmp_path: Path) -> None:
    """Its code: numpy.random.seed(0), then choice(50000, 5000, replace=False); the order is not kept."""
    state = np.random.RandomState(0)
    assert choose(50000, "10%", 0) == sorted(state.choice(50000, 5000, replace=False).tolist())
    archive = tmp_path / "cifar-python.tar.gz"
    data, _ = cifar(archive)
    converted(archive, tmp_path / "out.zip", "--subset=10%")
    chosen = sorted(np.random.RandomState(0).choice(50, 5, replace=False).tolist())
    for place, number in enumerate(chosen):
        assert np.array_equal(pixels(tmp_path / "out.zip", place), data[number].reshape(3, 32, 32).transpose(1, 2, 0))


def test_a_batch_that_holds_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("x",))

    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for number in range(1, 6):
        (root / f"data_batch_{number}").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    result = tool("convert", f"--source={root}", f"--dest={tmp_path / 'out.zip'}")
    assert result.exit_code == 2
    assert "data_batch_1 cannot be read: it names " in result.output
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(packed: bool, tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    root.mkdir()
    images: np.ndarray = rng.integers(0, 256, (3, 28, 28), np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", np.array([7, 0, 9], np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = header + array.tobytes()
        path = root / f"train-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    meta = converted(root, tmp_path / "out.zip")
    assert [label for _, label in meta["labels"]] == [7, 0, 9]
    made = pixels(tmp_path / "out.zip", 1)
    assert made.shape == (32, 32, 3)
    assert np.array_equal(made[2:30, 2:30, 0], images[1])
    assert made[:2].max() == 0


def test_lmdb(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    images = {key: rng.integers(0, 256, (16, 16, 3), np.uint8) for key in (b"b", b"a")}
    with lmdb.open(str(tmp_path / "church_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as writer:
        for key, image in images.items():
            content = io.BytesIO()
            Image.fromarray(image).save(content, "png")
            writer.put(key, content.getvalue())
    assert converted(tmp_path / "church_lmdb", tmp_path / "out.zip")["labels"] is None
    assert np.array_equal(pixels(tmp_path / "out.zip", 0), images[b"a"])


def test_video(tmp_path: Path) -> None:
    import imageio_ffmpeg as ffmpeg

    path = tmp_path / "clip.mp4"
    writer = ffmpeg.write_frames(str(path), (32, 32), fps=10, codec="libx264", quality=10, macro_block_size=1)
    writer.send(None)
    for level in range(20):
        writer.send(np.full((32, 32, 3), 10 * level, np.uint8))
    writer.close()
    converted(path, tmp_path / "all.zip")
    assert ImageDataset(tmp_path / "all.zip").raw_length == 20
    assert abs(float(pixels(tmp_path / "all.zip", 10).mean()) - 100) < 8
    converted(path, tmp_path / "some.zip", "--fps=5", "--resolution=16")
    assert ImageDataset(tmp_path / "some.zip").raw_length == 10


def test_several_processes_make_the_same_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(70):
        picture(tmp_path / "in" / f"{number:03d}.png", 20, 24)
    contents = []
    for workers in (1, 2):
        monkeypatch.setattr("dataset_tool.max", lambda *given: 2, raising=False)  # few images too are shared
        dest = tmp_path / f"out{workers}.zip"
        converted(tmp_path / "in", dest, "--resolution=16", f"--workers={workers}")
        with zipfile.ZipFile(dest) as archive:
            contents.append({info.filename: archive.read(info) for info in archive.infolist()})
    assert len(contents[0]) == 71
    assert contents[0] == contents[1]


def test_an_interrupted_conversion_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        picture(tmp_path / "in" / f"{number:03d}.png")
    dest, made = tmp_path / "out.zip", []
    original = converting.make_images

    def interrupted(*given: Any) -> list[str]:
        made.append(len(given[2]))
        if len(made) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(converting, "make_images", interrupted)
    assert tool("convert", f"--source={tmp_path / 'in'}", f"--dest={dest}").exit_code != 0
    assert not dest.exists()
    assert len(list(work_folder(dest).glob("*.png"))) == 16
    converted(tmp_path / "in", dest)
    assert made == [16, 16, 16, 8]
    assert ImageDataset(dest).raw_length == 40
    # Another conversion into the same file starts anew.
    made[:] = [0, 0]
    converted(tmp_path / "in", dest, "--resolution=8")
    assert ImageDataset(dest).resolution == 8


def test_broken_images_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    (folder / "cats/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    half = (folder / "dogs/c.png").read_bytes()[:200]
    (folder / "dogs/half.png").write_bytes(half)
    dest = tmp_path / "out.zip"
    result = tool("convert", f"--source={folder}", f"--dest={dest}")
    assert result.exit_code == 2
    assert "--source: 2 images cannot be read: 'cats/broken.jpg' (" in result.output
    assert "'dogs/half.png' (" in result.output
    assert not dest.exists()
    result = tool("convert", f"--source={folder}", f"--dest={dest}", "--skip-broken=true")
    assert result.exit_code == 0, result.output
    assert "left out, cannot be read: dogs/half.png" in result.output
    assert ImageDataset(dest).raw_length == 3


def test_validate(folder: Path, tmp_path: Path) -> None:
    result = tool("validate", folder)
    assert result.exit_code == 0, result.output
    assert "3 images, all of 3 of 16x16, nothing wrong" in result.output
    (folder / "cats/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    picture(folder / "cats/wide.png", 16, 32)
    picture(folder / "loose.png")
    labels = [["cats/a.png", 0], ["gone.png", 1]]
    result = tool("validate", folder)
    assert result.exit_code == 2
    for line in (
        "broken: cats/broken.jpg (",
        "odd size: cats/wide.png is 32x16, most images are 16x16",
        "no class: loose.png lies beside the folders of classes",
        "3 problems in 6 images",
    ):
        assert line in result.output
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "captions": [["lost.png", "x"]]}))
    result = tool("validate", folder, "--any-size")
    for line in (
        "no label: cats/b.png",
        "dataset.json has a label for gone.png, which is not there",
        "dataset.json has a caption for lost.png, which is not there",
    ):
        assert line in result.output
    assert "odd size" not in result.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source=gone"], "--source: 'gone' does not exist"),
        (["--dest={}/out"], "its name must end with .zip"),
        (["--subset=0"], "--subset: 0 is 0 images, expected 1 to 3"),
        (["--subset=many"], "--subset: 'many' was given, expected a number of images or a share such as 10%"),
        (["--subset=200%"], "--subset: 200% is 6 images, expected 1 to 3"),
        (["--subset=nan%"], "--subset: 'nan%' was given"),
        (["--resolution=24"], "--resolution: 24 was given, it must be a power of two"),
        (["--split=test"], "--split=test is for sets that are published in two parts"),
        (["--fps=2"], "--fps=2 is for videos"),
    ],
)
def test_mistakes(folder: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    given = [f"--source={folder}", f"--dest={tmp_path / 'out.zip'}", *(flag.format(tmp_path) for flag in flags)]
    result = tool("convert", *given)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_images_of_different_sizes(folder: Path, tmp_path: Path) -> None:
    picture(folder / "dogs/large.png", 64, 48)
    result = tool("convert", f"--source={folder}", f"--dest={tmp_path / 'out.zip'}")
    assert result.exit_code == 2
    assert "these are 3 of 16x16, 1 of 48x64. Give --resolution=16" in result.output


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b damaged", b"<html>"])
def test_an_archive_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    result = tool("convert", f"--source={path}", f"--dest={tmp_path / 'out.zip'}")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert f"--source: '{path}' cannot be read as an archive" in result.output
