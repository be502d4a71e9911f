"""What --data may name, and the file and text helpers of dnnlib below it."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dnnlib.errors import UserError
from dnnlib.files import make_run_dir, next_run_name, require_writable, write_atomic
from dnnlib.text import format_seconds, format_size
from kd_plugin import download
from kd_plugin.errors import KDError
from training.data import fewshot_sets
from training.data.dataset import ImageDataset
from training.data.fewshot_sets import resolve_data


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_a_path_that_exists_is_taken_even_under_a_sets_name(cache: Path) -> None:
    Path("100-shot-obama").mkdir()
    assert resolve_data("100-shot-obama") == Path("100-shot-obama")


@pytest.mark.parametrize("spec", ["AnimalFace-cat", "AnimalFace-cat.zip"])
def test_a_sets_name_is_downloaded(spec: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fake(url: str, filename: str, **rest: Any) -> Path:
        asked.append((url, filename))
        cache.mkdir(exist_ok=True)
        with zipfile.ZipFile(cache / filename, "w") as archive:
            for number in range(160):
                archive.writestr(f"{number}.jpg", b"")
        return cache / filename

    monkeypatch.setattr(fewshot_sets, "download", fake)
    assert resolve_data(spec) == cache / "AnimalFace-cat.zip"
    assert asked == [("https://data-efficient-gans.mit.edu/datasets/AnimalFace-cat.zip", "AnimalFace-cat.zip")]


def one_image_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.jpg", b"")


WRONG = {
    "no whole zip file": lambda path: path.write_bytes(b"<html>we have moved</html>"),
    "1 images, and the set has 100": one_image_zip,
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_download_that_is_not_the_set_is_thrown_away(
    problem: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    WRONG[problem](tmp_path / "served" / "100-shot-panda.zip")
    monkeypatch.setattr(fewshot_sets, "_SOURCE", (tmp_path / "served").as_uri())
    monkeypatch.setattr(download, "_PAUSES_SEC", ())
    with pytest.raises(UserError, match=rf"100-shot-panda\.zip \(it sent another file: {problem}\).*--data=PATH"):
        resolve_data("100-shot-panda")
    assert [path.suffix for path in cache.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("problem", WRONG)
def test_what_was_put_there_by_hand_is_refused_but_kept(problem: str, cache: Path) -> None:
    cache.mkdir()
    WRONG[problem](cache / "100-shot-panda.zip")
    with pytest.raises(UserError, match=rf"100-shot-panda\.zip is another file \({problem}\); delete it and run again"):
        resolve_data("100-shot-panda")
    assert (cache / "100-shot-panda.zip").exists()


def test_no_internet_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise TimeoutError("no route to host")

    monkeypatch.setattr(download, "urlopen", offline)
    monkeypatch.setattr(download, "_PAUSES_SEC", ())
    with pytest.raises(UserError) as caught:
        resolve_data("100-shot-obama")
    message = str(caught.value)
    assert "https://data-efficient-gans.mit.edu/datasets/100-shot-obama.zip" in message
    assert "--data=PATH" in message
    assert not isinstance(caught.value, KDError)


def test_an_unknown_name_brings_the_nearest(cache: Path) -> None:
    with pytest.raises(UserError, match=r"--data: '100-shot-obma\.zip' is neither .* nearest: '100-shot-obama'"):
        resolve_data("100-shot-obma.zip")
    with pytest.raises(UserError, match=r"'sub/AnimalFace-dog\.zip' is neither an existing zip or folder"):
        resolve_data("sub/AnimalFace-dog.zip")


def test_a_mistyped_path_brings_what_lies_there(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "dogs.zip").touch()
    with pytest.raises(UserError, match=r"dgos\.zip' is neither .*; nearest: 'dogs\.zip'$"):
        resolve_data(tmp_path / "dgos.zip")
    with pytest.raises(UserError, match=r"; '.*' holds dogs\.zip$"):
        resolve_data(tmp_path / "100-shot-obamas")
    with pytest.raises(UserError, match=r"; the folder '.*none' does not exist either$"):
        resolve_data(tmp_path / "none" / "dogs.zip")
    (tmp_path / "dogs.zip").unlink()
    with pytest.raises(UserError, match=r"' holds no zip or folder$"):
        resolve_data(tmp_path / "dogs.zip")


def test_demo_is_drawn_once_and_is_a_dataset(cache: Path) -> None:
    path = resolve_data("demo")
    made = path.stat().st_mtime_ns
    assert resolve_data("demo") == path
    assert path.stat().st_mtime_ns == made
    dataset = ImageDataset(path, use_labels=True)
    assert (len(dataset), dataset.resolution) == (100, 32)
    assert dataset.captions is not None
    assert dataset.class_names is not None
    for index in (0, 57):
        assert dataset.class_names[int(dataset.label(index).argmax())] in dataset.captions[index]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--data: cannot write the demo set to .*; set KD_CACHE to another folder"):
        resolve_data("demo")


# dnnlib.files


def test_atomic_write_takes_bytes_text_and_writers(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.bin", b"\x00\x01")
    write_atomic(tmp_path / "a.txt", "grün")
    write_atomic(tmp_path / "a.png", lambda path: Image.new("RGB", (2, 2), "red").save(path))
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "grün"
    assert Image.open(tmp_path / "a.png").format == "PNG"
    write_atomic(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.png", "a.txt"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")

    def interrupted(path: Path) -> None:
        path.write_bytes(b"half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.bin", interrupted)
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "a.bin", b"")
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_runs_are_numbered_past_the_highest(tmp_path: Path) -> None:
    assert next_run_name(tmp_path / "none", "cats") == "00000-cats"
    for name in ("00000-x", "00007-y", "00003-z", "notes", "123-short", "100-shot-obama"):
        (tmp_path / name).mkdir()
    assert next_run_name(tmp_path, "cats") == "00008-cats"
    assert next_run_name(tmp_path, "my cats/dogs: low_shot, γ=1.5") == "00008-my-cats-dogs-low_shot-γ-1.5"
    assert next_run_name(tmp_path, "") == "00008"
    assert make_run_dir(tmp_path / "deep" / "er", "a").name == "00000-a"
    assert make_run_dir(tmp_path, "a") == tmp_path / "00008-a"
    assert make_run_dir(tmp_path, "a") == tmp_path / "00009-a"
    (tmp_path / "99999-big").mkdir()
    (tmp_path / "100000-bigger").mkdir()
    assert next_run_name(tmp_path, "a") == "100001-a"


def test_a_run_folder_made_by_another_program_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "00000-a").mkdir()
    answers = iter(["00000-a", "00001-a"])  # the first was computed before the other program made it
    monkeypatch.setattr("dnnlib.files.next_run_name", lambda *_: next(answers))
    assert make_run_dir(tmp_path, "a") == tmp_path / "00001-a"


def test_an_outdir_that_is_a_file_or_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"--outdir: '.*file' cannot be a folder, '.*file' is a file; choose another"):
        require_writable(tmp_path / "file")
    with pytest.raises(UserError, match=r"--to: '.*runs' cannot be a folder, '.*file' is a file; choose another --to"):
        require_writable(tmp_path / "file" / "runs", flag="--to")
    with pytest.raises(UserError, match=r"--outdir: cannot make a folder in '.*file' \(.+\)"):
        make_run_dir(tmp_path / "file", "a")


def test_checking_an_outdir_leaves_nothing_behind(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "runs")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_outdir_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"--outdir: cannot write to '.*' \(Permission denied\)"):
        require_writable(tmp_path / "runs")


def test_an_outdir_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"--outdir: cannot write to '.*' \(Read-only file system\); choose another"):
        require_writable(tmp_path / "runs")


# dnnlib.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"), (59.6, "1m 00s"), (59.4, "59s"), (123, "2m 03s"), (3723, "1h 02m 03s"),
        (86399.7, "1d 00h 00m"), (2 * 86400 + 3720, "2d 01h 02m"),
    ],
)  # fmt: skip
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (353_976_522, "354.0 MB"),
        (5 * 10**12, "5000.0 GB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert format_size(size) == text
