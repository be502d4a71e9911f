"""What people hit with their data and their command lines: each input, made here, with the outcome it must have.

An accepted set must give the right number of images, size and label width; a refused one ends with exit code 2, one
line that names the cause, and nothing left behind.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from train import main
from training.runs import configure

SIDE = 16


def picture(seed: int, width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures(count: int = 6, folder: str = "") -> dict[str, bytes]:
    return {f"{folder}img{number:04d}.png": encoded(picture(number)) for number in range(count)}


def huge_png(side: int = 30_000) -> bytes:
    """A header that promises 900 million pixels, and nearly nothing behind it."""
    content = bytearray(encoded(Image.new("L", (1, 1))))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def labelled(values: list[Any], encoding: str = "utf-8", separator: str = "/") -> dict[str, bytes]:
    names = [f"00000{separator}img{number:04d}.png" for number in range(len(values))]
    table = json.dumps({"labels": [[name, value] for name, value in zip(names, values, strict=True)]})
    return pictures(len(values), "00000/") | {"dataset.json": table.encode(encoding)}


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def in_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def damaged(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@dataclass(frozen=True)
class Accepted:
    files: dict[str, bytes]
    images: int = 6
    labels: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # part of what is said of the labels


L = labelled([0, 2, 1, 0, 2, 1])
GREY, ALPHA, PALETTE = ({f"{k}.png": encoded(picture(k, mode=mode)) for k in range(6)} for mode in ("L", "LA", "P"))
DEEP = {f"{k}.png": encoded(Image.fromarray(np.asarray(picture(k, mode="L")).astype(np.uint16) << 8)) for k in range(6)}
KINDS = {"JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tiff", "PNG": "png"}
EVERY_KIND = {f"a.{suffix}": encoded(picture(0), kind) for kind, suffix in KINDS.items()}
LITTER = dict.fromkeys(["Thumbs.db", ".DS_Store", "desktop.ini", "README.md", "list.csv", "__MACOSX/._a.png"], b"x")

ACCEPTED: dict[str, Accepted] = {
    "plain": Accepted(pictures()),
    "grey": Accepted(GREY),
    "grey with alpha": Accepted(ALPHA),
    "palette": Accepted(PALETTE),
    "16 bits": Accepted(DEEP),
    "CMYK": Accepted({f"{k}.jpg": encoded(picture(k, mode="CMYK"), "JPEG") for k in range(6)}),
    "one bit": Accepted({f"{k}.png": encoded(picture(k, mode="1")) for k in range(6)}),
    "every kind": Accepted(EVERY_KIND),
    "moving picture": Accepted(
        {"a.gif": encoded(picture(0), "GIF", save_all=True, append_images=[picture(1)])} | pictures(5)
    ),
    "suffixes in capitals": Accepted(
        {f"{k}.PNG": encoded(picture(k)) for k in range(5)} | {"x.JpEg": EVERY_KIND["a.jpg"]}
    ),
    "a PNG called jpg": Accepted({f"{k}.jpg": encoded(picture(k)) for k in range(6)}),
    "litter": Accepted(pictures() | LITTER),
    "sub-folders": Accepted(pictures(3, "a/b/c/") | pictures(3, "d.png/")),
    "mixed sizes": Accepted(pictures(5) | {"x.png": encoded(picture(9, 40, 24))}, options={"resolution": 16}),
    "one image": Accepted(pictures(1), images=1),
    "all the same": Accepted({f"{k}.png": encoded(picture(0)) for k in range(6)}),
    "a subset": Accepted(pictures(), images=4, options={"subset": 4}),
    "names in any script": Accepted({f"фото №{k} ü.png": encoded(picture(k)) for k in range(6)}),
    "labels": Accepted(L, labels=3, options={"cond": True}, note="3 classes in dataset.json"),
    "labels not used": Accepted(L, note="3 classes in dataset.json, not used (--cond=1 uses them)"),
    "no labels": Accepted(pictures() | {"dataset.json": b'{"labels": null}'}),
    "a mark before the labels": Accepted(labelled([0, 1, 2], "utf-8-sig"), 3, 3, {"cond": True}),
    "labels in UTF-16": Accepted(labelled([0, 1, 2], "utf-16"), 3, 3, {"cond": True}),
    "labels as text": Accepted(labelled(["0", "1", "2"]), 3, 3, {"cond": True}),
    "labels as fractions": Accepted(labelled([0.0, 1.0, 2.0]), 3, 3, {"cond": True}),
    "labels as names": Accepted(
        labelled(["cat", "dog", "cat"]), 3, 2, {"cond": True}, "2 classes in dataset.json (cat, dog)"
    ),
    "labels as vectors": Accepted(labelled([[0.5, 1], [1, 0], [0, 1]]), 3, 2, {"cond": True}, "2 numbers each"),
    "labels from Windows": Accepted(labelled([0, 1, 2], separator="\\"), 3, 3, {"cond": True}),
    "one class": Accepted(labelled([0, 0, 0]), 3, 1, {"cond": True}),
    "the folder was zipped": Accepted({f"pets/{name}": content for name, content in L.items()}, 6, 3, {"cond": True}),
    "one folder per class": Accepted(
        pictures(3, "cats/") | pictures(3, "dogs/"), 6, 2, {"cond": True}, "2 classes by folder (cats, dogs)"
    ),
}


@pytest.mark.parametrize("kind", ["zip", "deflated", "folder"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, kind: str, tmp_path: Path) -> None:
    case = ACCEPTED[name]
    if kind == "folder" and name == "labels from Windows":
        case = Accepted({key.replace("\\", "/"): value for key, value in case.files.items()}, 3, 3, case.options)
    if kind == "folder":
        path = in_folder(tmp_path / "set", case.files)
    else:
        compression = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
        path = zipped(tmp_path / "set.zip", case.files, compression)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    _, dataset = configure({"data": str(path), **case.options})
    dataset.preload()
    assert (dataset.used, dataset.resolution, dataset.label_dim) == (case.images, SIDE, case.labels)
    assert case.note in dataset.label_note
    assert len(dataset.gather(np.arange(len(dataset)))[0]) == case.images
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_grey_stays_grey_and_alpha_lies_on_white(tmp_path: Path) -> None:
    grey = Image.new("LA", (SIDE, SIDE), (128, 255))
    clear = Image.new("LA", (SIDE, SIDE), (128, 0))
    path = in_folder(tmp_path / "set", {"a.png": encoded(grey), "b.png": encoded(clear)})
    _, dataset = configure({"data": str(path)})
    assert (dataset[0][0] == 128).all()
    assert (dataset[1][0] == 255).all()


@dataclass(frozen=True)
class Refused:
    """`make` writes the input into a folder and returns the flags; `words` stand in the message."""

    make: Callable[[Path], list[str]]
    words: tuple[str, ...]


def data(files: dict[str, bytes], *flags: str, name: str = "set.zip") -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        path = zipped(folder / name, files) if name.endswith(".zip") else in_folder(folder / name, files)
        return [f"--data={path}", *flags]

    return make


def raw(content: bytes, name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return [f"--data={folder / name}"]

    return make


def cut_zip(folder: Path) -> list[str]:
    path = zipped(folder / "download.zip", pictures())
    path.write_bytes(path.read_bytes()[:-60])
    return [f"--data={path}"]


def flipped_zip(folder: Path) -> list[str]:
    path = zipped(folder / "set.zip", {"a.bmp": encoded(picture(0), "BMP"), "b.bmp": encoded(picture(1), "BMP")})
    content = path.read_bytes()
    path.write_bytes(damaged(content, content.index(encoded(picture(1), "BMP")) + 100))
    return [f"--data={path}"]


def folder_of_a_zip(folder: Path) -> list[str]:
    zipped(folder / "sets" / "cats.zip", pictures())
    return [f"--data={folder / 'sets'}"]


def near_miss(folder: Path) -> list[str]:
    zipped(folder / "sets" / "cats.zip", pictures())
    return [f"--data={folder / 'sets' / 'kats.zip'}"]


def with_prompts(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "prompts.txt").write_text(text)
        return [*data(pictures())(folder), "--kd=demo", f"--kd-prompts={folder / 'prompts.txt'}"]

    return make


PNG = encoded(picture(3))
COND = "--cond=1"
REFUSED: dict[str, Refused] = {
    "no such path": Refused(lambda folder: [f"--data={folder}/nowhere/cats.zip"], ("cats.zip",)),
    "a near miss": Refused(near_miss, ("kats.zip", "nearest", "cats.zip")),
    "an empty zip": Refused(data({}), ("set.zip", "no images")),
    "an empty folder": Refused(data({}, name="pics"), ("pics", "no images")),
    "text only": Refused(data({"a.txt": b"", "b.csv": b""}, name="pics"), ("pics", "no images", ".png")),
    "the folder of the zip": Refused(folder_of_a_zip, ("no images", "did you mean", "cats.zip")),
    "a single picture": Refused(raw(PNG, "cat.png"), ("cat.png", "a folder or a zip")),
    "another archive": Refused(raw(b"\x1f\x8b\x08rest", "set.tar.gz"), ("set.tar.gz", "a folder or a zip")),
    "a cut download": Refused(cut_zip, ("download.zip",)),
    "a flipped bit in the zip": Refused(flipped_zip, ("b.bmp", "checksum")),
    "damaged pixels": Refused(data(pictures() | {"bad.png": damaged(PNG, 60)}), ("bad.png",)),
    "a page that says no": Refused(
        data(pictures() | {"bad.jpg": b"<html>404"}, name="pics"), ("bad.jpg", "not an image")
    ),
    "an empty file": Refused(data(pictures() | {"bad.png": b""}), ("bad.png",)),
    "a bomb": Refused(data(pictures() | {"huge.png": huge_png()}, "--resolution=16"), ("huge.png", "pixels")),
    "a bomb in a folder": Refused(data(pictures() | {"huge.png": huge_png()}, name="pics"), ("huge.png", "pixels")),
    "mixed sizes": Refused(
        data(pictures() | {"x.png": encoded(picture(9, 64, 48))}),
        ("6 of 16x16", "1 of 64x48", "'x.png'", "--resolution=16"),
    ),
    "a tracking pixel": Refused(
        data(pictures() | {"pixel.png": encoded(picture(9, 1, 1))}), ("1 of 1x1", "pixel.png", "--resolution=16")
    ),
    "all too small": Refused(data({"a.png": encoded(picture(9, 1, 1))}), ("1x1", "at least 4")),
    "no power of two": Refused(data({"a.png": encoded(picture(9, 100, 100))}), ("100x100", "--resolution=64")),
    "no labels": Refused(data(pictures(), COND), (COND[:6], "dataset.json")),
    "labels null": Refused(
        data(pictures() | {"dataset.json": b'{"labels": null}'}, COND), ("no labels", "dataset.json")
    ),
    "broken labels": Refused(data(pictures() | {"dataset.json": b'{"labels": ['}), ("dataset.json",)),
    "a fractional label": Refused(data(labelled([0, 1.5]), COND), ("img0001.png", "1.5")),
    "a huge label": Refused(data(labelled([0, 10**9]), COND), ("img0001.png", "1000000000")),
    "a missing label": Refused(data(labelled([0, 1]) | {"new.png": PNG}, COND), ("1 images", "new.png")),
    "more than there are": Refused(data(pictures(), "--subset=1000"), ("--subset", "1000", "6")),
    "a wrong flag": Refused(data(pictures(), "--gama=1"), ("--gama", "--gamma")),
    "a wrong preset": Refused(data(pictures(), "--cfg=lowshot"), ("lowshot", "low_shot")),
    "a stray word": Refused(data(pictures(), "cats"), ("cats",)),
    "a wrong teacher": Refused(data(pictures(), "--kd=clp"), ("clp", "clip")),
    "a missing teacher file": Refused(data(pictures(), "--kd=clip:/no/ViT-B-32.pt"), ("/no/ViT-B-32.pt",)),
    "a missing snapshot": Refused(
        data(pictures(), "--resume=/no/net-0.safetensors"), ("--resume", "net-0.safetensors")
    ),
    "no prompts": Refused(with_prompts("\n\n  \n"), ("prompts.txt", "no prompt")),
    "a long prompt": Refused(with_prompts("a cat\n" + "very " * 80 + "big cat\n"), ("tokens", "line 2", "prompts.txt")),
    "an outdir that is a file": Refused(
        lambda folder: [*data(pictures())(folder), f"--outdir={folder / 'set.zip'}"], ("--outdir", "set.zip")
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    case, outdir = REFUSED[name], tmp_path / "out"
    (tmp_path / "in").mkdir()
    flags = case.make(tmp_path / "in")
    result = train(f"--outdir={outdir}", *flags)
    assert result.exit_code == 2, result.output
    message = " ".join(result.output.split())
    assert [word for word in case.words if word not in message] == []
    assert "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) <= 4  # click says the usage before its own messages
    assert not outdir.exists()


def train(*flags: str) -> Result:
    tiny = ["--cfg=low_shot", "--cbase=64", "--cmax=8", "--map-depth=1", "--batch=2", "--kimg=0.004", "--device=cpu"]
    return CliRunner().invoke(main, [*tiny, *flags])


@pytest.mark.parametrize("form", ["spaces", "quotes", "tilde", "two words"])
def test_paths_as_people_type_them(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = zipped(tmp_path / "my data (final) ü" / "set 1.zip", pictures())
    outdir = tmp_path / "out dir" / "ü ß"
    shown = f"~/{outdir.relative_to(tmp_path)}" if form == "tilde" else outdir
    given = {
        "spaces": [f"--data={path}"],
        "quotes": [f'--data="{path}"'],
        "tilde": ["--data=~/my data (final) ü/set 1.zip"],
        "two words": ["--data", str(path)],
    }[form]
    result = train(*given, f"--outdir={shown}")
    assert result.exit_code == 0, result.output
    assert "Images:      6 of 16x16" in result.output
    assert (next(outdir.iterdir()) / "reals.png").is_file()
