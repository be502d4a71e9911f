"""Networks of the `transformers` package as teachers: `hf:ORG/MODEL`, or `hf:FOLDER` with the same files.

CLIP and SigLIP have both sides; of networks for images alone (DINOv2, ViT) the pooled output is distilled, by AGKD
only.
No code that comes with a model is ever run (`trust_remote_code` stays off).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_plugin.errors import PromptError, TeacherError, arg, first_line
from kd_plugin.file_kinds import what_it_is
from kd_plugin.teachers.network import NetworkTeacher, TextSide, ready
from kd_plugin.teachers.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

__all__ = ["load"]

_INSTALL = "pip install transformers"
_FORM = "give hf:ORG/MODEL as on huggingface.co, such as hf:facebook/dinov2-small, or hf:FOLDER"
_MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, in preprocessor_config.json


def load(name: str, device: torch.device, precision: str) -> NetworkTeacher:
    """
    Args:
        name: ORG/MODEL, or a folder with config.json, the weights, and preprocessor_config.json.
        device: where to compute.
        precision: `fp32`, `bf16` or `auto`.

    Raises:
        TeacherError: transformers is missing, the model does not exist, or it has no usable image encoder.
    """
    if not name:
        raise TeacherError(f"{arg('teacher', 'hf')}: names no model; {_FORM}")
    try:
        import transformers
    except ImportError as error:
        raise TeacherError(
            f"{arg('teacher', f'hf:{name}')} needs a package that is not installed ({error}): {_INSTALL}"
        ) from error
    with torch.random.fork_rng(devices=[]):  # building initialises at random before it loads
        try:
            model = transformers.AutoModel.from_pretrained(name, trust_remote_code=False, dtype=torch.float32)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise TeacherError(
                f"{arg('teacher', f'hf:{name}')}: cannot be loaded ({first_line(error)}); {_FORM}"
                f"{what_it_is(Path(name))}"
            ) from error
    model = model.to(device).eval()
    image_side = getattr(model, "get_image_features", None)

    def look(images: Tensor) -> Tensor:
        return _pooled(model(pixel_values=images) if image_side is None else image_side(pixel_values=images), name)

    text_side = _text_side(model, name, device, transformers) if hasattr(model, "get_text_features") else None
    try:
        preprocess = _preprocess(name, device, transformers)
        return NetworkTeacher(
            f"hf:{name}", model, look, text_side, preprocess, device, *ready(model, precision, device)
        )
    except TeacherError:  # is a ValueError too
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise TeacherError(
            f"{arg('teacher', f'hf:{name}')}: {type(model).__name__} cannot be used as an image tower "
            f"({first_line(error)}); {_FORM}"
        ) from error


def _pooled(output: Any, name: str) -> Tensor:
    """One row per image, whatever the version of transformers calls it."""
    if isinstance(output, Tensor):
        return output
    pooled: Any = getattr(output, "pooler_output", None)
    hidden: Any = getattr(output, "last_hidden_state", None)
    if pooled is None and hidden is None:
        raise TeacherError(f"{arg('teacher', f'hf:{name}')}: it gives no pooled output; {_FORM}")
    if pooled is None:  # the class token, or the mean over a map
        pooled = hidden[:, 0] if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
    embeddings: Tensor = pooled.flatten(1)  # convolutional networks pool to [N, E, 1, 1]
    return embeddings


def _text_side(model: Any, name: str, device: torch.device, transformers: Any) -> TextSide:
    tokenizer = None  # made at first use: distillation without texts needs none

    def read(texts: Sequence[str]) -> Tensor:
        nonlocal tokenizer
        if tokenizer is None:
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            except Exception as error:  # tokenizers raise whatever the library they wrap does
                raise TeacherError(
                    f"{arg('teacher', f'hf:{name}')}: its tokenizer cannot be loaded ({first_line(error)})"
                ) from error
        longest = int(getattr(model.config, "text_config", model.config).max_position_embeddings)
        for text in texts:
            count = len(tokenizer(text)["input_ids"])
            if count > longest:
                raise PromptError(
                    f"{arg('prompts')}: '{text[:60]}' has {count} tokens; teacher 'hf:{name}' takes {longest} at most: "
                    "shorten it",
                    text,
                )
        # To the full length: SigLIP was trained so, and to CLIP it makes no difference.
        tokens = tokenizer(list(texts), padding="max_length", max_length=longest, return_tensors="pt").to(device)
        mask = {} if "siglip" in model.config.model_type else {"attention_mask": tokens["attention_mask"]}
        return _pooled(model.get_text_features(input_ids=tokens["input_ids"], **mask), name)

    return read


def _preprocess(name: str, device: torch.device, transformers: Any) -> Preprocess:
    """As preprocessor_config.json says. Read as data: the classes it names need torchvision, and PIL's images."""
    path = None
    for file in ("preprocessor_config.json", "processor_config.json"):
        try:
            path = path or transformers.utils.cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        except OSError:
            continue
    if path is None:
        raise TeacherError(
            f"{arg('teacher', f'hf:{name}')}: it has no preprocessor_config.json, which says how it wants its images"
        )
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    config = config.get("image_processor", config)
    size, mode = config.get("size", 224), _MODES.get(config.get("resample", 3), "bicubic")
    sides = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    squash = "shortest_edge" not in sides
    side = sides.get("shortest_edge") or sides.get("height")
    crop = config.get("crop_size") if config.get("do_center_crop", not squash) else None
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if side is None or sides.get("width", side) != side:
        raise TeacherError(
            f"{arg('teacher', f'hf:{name}')}: its preprocessing wants the size {size}; only squares are supported"
        )
    mean, std = config.get("image_mean") or CLIP_MEAN, config.get("image_std") or CLIP_STD
    return Preprocess(int(side), tuple(mean), tuple(std), device, crop=crop, squash=squash, mode=mode)
