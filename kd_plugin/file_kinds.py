"""What a file is, by its content: for messages about a file that was given to the wrong flag."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from kd_plugin.errors import arg

__all__ = ["what_it_is"]

_PICTURES = {
    b"\x89PNG": "a PNG", b"\xff\xd8\xff": "a JPEG", b"GIF8": "a GIF", b"BM": "a BMP",
    b"II*\0": "a TIFF", b"MM\0*": "a TIFF",
}  # fmt: skip
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_FIRST = 4096  # bytes


def what_it_is(path: Path) -> str:
    """'; it is a picture (a PNG): ...', for the end of a message; "" where nothing can be said.

    Nothing in the file runs: pickles are searched for words, and not loaded.
    """
    try:
        kind = _of_folder(path) if path.is_dir() else _of_file(path)
    except (OSError, ValueError, zipfile.BadZipFile, KeyError):
        return ""
    return f"; it is {kind}" if kind else ""


def _of_folder(path: Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    if "training-state.pt" in names:
        snapshots = sorted(name for name in names if name.startswith("network-snapshot-"))
        newest = f", --network='{path / snapshots[-1]}' its newest snapshot" if snapshots else ""
        return f"the folder of a run: --resume='{path}' continues it{newest}"
    if runs := sorted(entry.name for entry in path.iterdir() if (entry / "training-state.pt").is_file()):
        return f"a folder of runs: give one of them, such as '{path / runs[-1]}'"
    if "config.json" in names and {"model.safetensors", "pytorch_model.bin"} & names:
        return f"a folder of the transformers package: {arg('teacher', f'hf:{path}')} takes it"
    return "" if names else "an empty folder"


def _of_file(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading might never end
        return "a pipe or a device"
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_FIRST)
    if not start:
        return "an empty file: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a placeholder of Git LFS, and not the file itself: run `git lfs pull`, or download it"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, probably an error that was saved as the file: download it again"
    for magic, name in _PICTURES.items():
        if start.startswith(magic):
            return f"a picture ({name}): --data takes a folder or a zip of them"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a picture (a WebP): --data takes a folder or a zip of them"
    if start.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            return f"an archive ({name}): unpack it"
    if start[257:262] == b"ustar":
        return "an archive (tar): unpack it"
    if len(start) > 8 and start[8:9] == b"{":
        return _of_safetensors(path, int.from_bytes(start[:8], "little"), size)
    if start[:1] == b"\x80" and start[1] <= 5:
        return _of_pickle([start, path.read_bytes() if size < 1 << 20 else start])
    return _of_text(path, start, size)


def _of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = next((name for name in names if name.endswith("data.pkl")), None)
            content = b"" if pickled is None else archive.read(pickled)
    except zipfile.BadZipFile:
        return "a zip or a torch file that is cut off: copy or download it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return f"a TorchScript network: --detector takes it, or {arg('teacher', 'script:FILE')} if it is an image tower"
    if pickled is not None:
        return _of_pickle([content])
    if names and all(name.endswith(".npy") for name in names):
        return f"a numpy archive (.npz): {arg('teacher', 'script:TOWER.pt+TEXTS.npz')} takes a table of texts"
    pictures = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
    shown = [name for name in names if not name.startswith(("__MACOSX", "../", "/")) and "/." not in f"/{name}"]
    if any(name.lower().endswith(pictures) for name in shown):
        return "a zip of images: --data, --reference and --fakes take it"
    return "a zip without images" if names else "an empty zip"


def _of_pickle(contents: Iterable[bytes]) -> str:
    """By words in it; what torch.save writes, and official networks."""
    text = b"".join(contents)
    if b"torch_utils.persistence" in text or b"dnnlib.tflib" in text:
        return (
            "a network pickle of the official code: --network and --resume read it, convert.py keeps it as a snapshot"
        )
    if all(word in text for word in (b"parts", b"dataset", b"teacher", b"progress")):
        return "the state of a run: --resume takes the folder that it lies in"
    if b"_extra_state" in text and b"balances" in text:
        return "the state of a distillation: it is found by itself beside its snapshot"
    if b"visual.conv1.weight" in text and b"token_embedding" in text:
        return f"weights of OpenAI's CLIP: {arg('teacher', 'clip:FILE')} takes them"
    if b"text_model." in text and b"vision_model." in text:
        return f"weights of the transformers package: {_as_folder()}"
    if b"_rebuild_tensor" in text or b"torch" in text:
        return "weights or a checkpoint saved by torch"
    return "a Python pickle"


def _as_folder() -> str:
    return f"give the folder with its config.json, as {arg('teacher', 'hf:FOLDER')}"


def _of_safetensors(path: Path, length: int, size: int) -> str:
    if not 2 <= length < 100_000_000:
        return ""
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(length)
    if len(raw) < length:
        return f"a safetensors file that is cut off ({size} bytes): copy or download it again"
    header = json.loads(raw)
    meta = header.pop("__metadata__", {})
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < 8 + length + end:
        return f"a safetensors file that is cut off ({size} of {8 + length + end} bytes): copy or download it again"
    if "kd_plugin" in meta:
        return "a snapshot of this trainer: --network takes it, and --resume starts a new run from its weights"
    if any(name.startswith(("text_model.", "vision_model.")) for name in header):
        return f"weights of the transformers package: {_as_folder()}"
    if "token_embedding.weight" in header:
        return f"weights of a CLIP: {arg('teacher', 'clip:FILE')} takes those with OpenAI's names"
    return "a safetensors file of another program"


def _of_text(path: Path, start: bytes, size: int) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig") if size < 1 << 20 else start.decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return ""
    if "\0" in text:
        return ""
    if text.lstrip().startswith(("{", "[")):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return "text that begins like JSON"
        keys = content.keys() if isinstance(content, dict) else set()
        if {"cfg", "gamma", "batch"} <= keys:
            return "the config.json of a run: --config takes it"
        if {"G_kwargs", "D_kwargs"} <= keys:
            return "the options of an official run: report.py takes the folder that it lies in"
        if "labels" in keys:
            return "a dataset.json: it belongs into the folder or zip of --data"
        return "a JSON file"
    return f"a text file: {arg('prompts', 'FILE')} takes texts, one per line"
