"""Which files of a zip or a folder count, and that nothing in it can make the listing hang."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from dnnlib.tables import open_table

FILES = {
    "b/2.PNG": b"two",
    "1.png": b"one",
    "notes.txt": b"",
    "table.csv": b"",
    "more.csv": b"",
    "LICENSE": b"",
    ".DS_Store": b"",
    "b/.hidden.png": b"",
    "__MACOSX/1.png": b"",
    "b/Thumbs.db": b"",
    "desktop.ini": b"",
}
SKIPPED = {".txt": 1, ".csv": 2, "LICENSE": 1, "hidden": 5}


def make(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return folder / "a.zip"
    for name, content in files.items():
        (folder / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "a" / name).write_bytes(content)
    return folder / "a"


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_what_counts_and_what_is_skipped(kind: str, tmp_path: Path) -> None:
    table = open_table(make(kind, tmp_path, FILES), (".png",), "set.json")
    assert [table.name(number) for number in range(len(table))] == ["1.png", "b/2.PNG"]
    assert [table.read(number) for number in range(len(table))] == [b"one", b"two"]
    assert dict(table.skipped) == SKIPPED
    assert (table.companion, table.companion_root) == (b"", "")


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize(
    ("companions", "content", "root"),
    [
        ({"set.json": b"top"}, b"top", ""),
        ({"set.json": b"top", "b/set.json": b"deep"}, b"top", ""),
        ({"b/set.json": b"deep"}, b"deep", "b/"),
        ({"b/set.json": b"deep", "c/set.json": b"other"}, b"", ""),  # which one is meant?
    ],
)
def test_the_companion(kind: str, companions: dict[str, bytes], content: bytes, root: str, tmp_path: Path) -> None:
    table = open_table(make(kind, tmp_path, FILES | companions), (".png",), "set.json")
    assert (table.companion, table.companion_root) == (content, root)
    assert dict(table.skipped) == SKIPPED


def test_backslashes_in_a_zip_are_slashes(tmp_path: Path) -> None:
    table = open_table(make("zip", tmp_path, {"a\\b\\1.png": b"one", "a\\.x.png": b""}), (".png",), "set.json")
    assert table.name(0) == "a/b/1.png"
    assert len(table) == 1
    assert table.read(0) == b"one"


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    elsewhere = make("folder", tmp_path / "elsewhere", {"3.png": b"three"})
    folder = make("folder", tmp_path, FILES)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "4.png").symlink_to(elsewhere / "3.png")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "broken.png").symlink_to(tmp_path / "nowhere")
    table = open_table(folder, (".png",), "set.json")
    assert [table.name(number) for number in range(len(table))] == ["1.png", "4.png", "b/2.PNG", "linked/3.png"]
    assert table.read(1) == table.read(3) == b"three"
    assert table.skipped[".png"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    folder = make("folder", tmp_path, {"1.png": b"one"})
    os.mkfifo(folder / "pipe.png")
    table = open_table(folder, (".png",), "set.json")
    assert len(table) == 1
    assert dict(table.skipped) == {".png": 1}


def test_a_folder_called_like_an_image(tmp_path: Path) -> None:
    table = open_table(make("folder", tmp_path, {"x.png/1.png": b"one"}), (".png",), "set.json")
    assert [table.name(number) for number in range(len(table))] == ["x.png/1.png"]
