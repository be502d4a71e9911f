"""Finding the file that `clip:...` names, and reading its weights without running code in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kd_plugin.download import download
from kd_plugin.errors import KDError, TeacherError, arg, first_line, nearest
from kd_plugin.file_kinds import what_it_is
from kd_plugin.files import DAMAGED
from kd_plugin.teachers.base import nearest_file
from kd_plugin.teachers.clip_architecture import Activation, activation_in
from kd_plugin.teachers.torchscript import is_torchscript, load_torchscript

__all__ = ["MODELS", "ClipWeights", "find_weights", "read_weights"]

_HOST = "https://openaipublic.azureedge.net/clip/models"

# OpenAI's released models: file, SHA-256 (which is also a part of its URL). As listed in the package's clip.py.
MODELS = {
    "RN50": ("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    "RN101": ("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    "RN50x4": ("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    "RN50x16": ("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    "RN50x64": ("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "ViT-L/14@336px": ("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
}

_WRAPPER = "module."

# What a weights file is called; tells a mistyped path from a mistyped name.
_SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}


def find_weights(model: str) -> Path:
    """The weights file of a released model (downloaded once into the cache) or of a path.

    Raises:
        TeacherError: neither a name nor a file, or the download failed.
    """
    if model in MODELS:
        filename, sha256 = MODELS[model]
        url = f"{_HOST}/{sha256}/{filename}"
        instead = f"download that file by hand and pass {arg('teacher', f'clip:/path/to/{filename}')}"
        try:
            return download(url, filename, sha256=sha256, what=f"OpenAI CLIP {model}", instead=instead)
        except KDError as error:
            raise TeacherError(str(error)) from error
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES:
        raise TeacherError(f"{arg('teacher', f'clip:{model}')}: there is no such file{nearest_file(path)}")
    raise TeacherError(
        f"{arg('teacher', f'clip:{model}')}: neither a released model nor a file{nearest(model, MODELS)}"
    )


@dataclass(frozen=True)
class ClipWeights:
    """tensors: by OpenAI's names. activation: what the file's own code computes, None if it contains no code."""

    tensors: dict[str, Tensor]
    activation: Activation | None = None


def read_weights(path: Path) -> ClipWeights:
    """The state_dict in a TorchScript archive (OpenAI's own form), a .safetensors file, or a state_dict saved by torch.

    None of the three ways runs code from the file: TorchScript is compiled but not called, safetensors holds numbers
    only, and torch.load is held to `weights_only`.

    Raises:
        TeacherError: it is none of these, or damaged.
    """
    try:
        if _is_safetensors(path):
            return ClipWeights(_unwrapped(safetensors.torch.load_file(path)))
        if is_torchscript(path):
            archive = load_torchscript(path, "cpu")
            return ClipWeights(dict(archive.state_dict()), activation_in(archive))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"{arg('teacher', f'clip:{path}')}: not loaded, since it holds Python objects whose loading could run "
            "code, or it is "
            f"damaged; save model.state_dict() alone, or use safetensors{what_it_is(path)}"
        ) from error
    except (SafetensorError, *DAMAGED) as error:
        raise TeacherError(
            f"{arg('teacher', f'clip:{path}')}: cannot be read ({first_line(error)}); fetch the file again"
            f"{what_it_is(path)}"
        ) from error
    content = _unwrapped(content)
    if not _is_state_dict(content):
        held = ", ".join(map(str, list(content)[:3])) if isinstance(content, Mapping) else type(content).__name__
        raise TeacherError(
            f"{arg('teacher', f'clip:{path}')}: expected a state_dict (names and tensors), found: {held}; save "
            f"model.state_dict() alone{what_it_is(path)}"
        )
    return ClipWeights(dict(content))


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of header length and an opening brace. People rename files."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _unwrapped(content: Any) -> Any:
    """The state_dict inside a checkpoint ({"epoch": 3, "state_dict": {...}}), without DataParallel's `module.`."""
    if isinstance(content, Mapping) and not _is_state_dict(content):
        inside = (content.get(name) for name in ("state_dict", "model_state_dict", "model"))
        content = next((found for found in inside if found and _is_state_dict(found)), content)
    if not _is_state_dict(content) or not all(name.startswith(_WRAPPER) for name in content):
        return content
    return {name.removeprefix(_WRAPPER): value for name, value in content.items()}


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
