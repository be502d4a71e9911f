"""Networks of the `open_clip_torch` package as teachers: `open_clip:ARCH/TAG`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_plugin.errors import PromptError, TeacherError, arg, first_line, nearest
from kd_plugin.teachers.network import NetworkTeacher, ready
from kd_plugin.teachers.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

__all__ = ["load"]

_INSTALL = "pip install open_clip_torch"
_FORM = "give open_clip:ARCH/TAG, such as open_clip:ViT-B-32/laion2b_s34b_b79k"


def load(spec: str, device: torch.device, precision: str) -> NetworkTeacher:
    """
    Args:
        spec: ARCH/TAG. For OpenAI's own weights the architecture must be one of the `-quickgelu` ones.
        device: where to compute.
        precision: `fp32`, `bf16` or `auto`.

    Raises:
        TeacherError: open_clip is missing, an unknown architecture or tag (with the nearest), or a failed download.
    """
    arch, _, tag = spec.partition("/")
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision does not fit the torch that is here
        raise TeacherError(
            f"{arg('teacher', f'open_clip:{spec}')} needs a package that cannot be imported ({first_line(error)}): "
            f"{_INSTALL}"
        ) from error
    _check(open_clip, arch, tag)
    with torch.random.fork_rng(devices=[]):
        try:
            model = open_clip.create_model(arch, pretrained=tag, precision="fp32", device="cpu")
            tokenizer = open_clip.get_tokenizer(arch)
        except (OSError, RuntimeError, ValueError, FileNotFoundError) as error:
            raise TeacherError(
                f"{arg('teacher', f'open_clip:{spec}')}: cannot be loaded ({first_line(error)}); {_FORM}"
            ) from error
    model = model.float().to(device).eval()

    def read(texts: Sequence[str]) -> Tensor:
        return model.encode_text(_tokens(tokenizer, texts, spec).to(device))  # type: ignore[no-any-return]

    preprocess = _preprocess(model, device)
    return NetworkTeacher(
        f"open_clip:{spec}", model, model.encode_image, read, preprocess, device, *ready(model, precision, device)
    )


def _check(open_clip: Any, arch: str, tag: str) -> None:
    known = open_clip.list_models()
    if arch not in known:
        raise TeacherError(
            f"{arg('teacher', f'open_clip:{arch}')}: there is no architecture '{arch}'{nearest(arch, known)}; {_FORM}"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag not in tags:
        raise TeacherError(
            f"{arg('teacher', f'open_clip:{arch}/{tag}')}: {arch} has no weights "
            f"'{tag}'{nearest(tag, tags, exhaustive=True)}; {_FORM}"
        )


def _tokens(tokenizer: Any, texts: Sequence[str], spec: str) -> Tensor:
    """[P, context]. The tokenizer cuts silently what is too long; here that is an error, if it can be told."""
    tokens: Tensor = tokenizer(list(texts))
    if hasattr(tokenizer, "encode"):
        for text in texts:
            count = len(tokenizer.encode(text)) + 2  # start and end marks
            if count > tokens.shape[1]:
                raise PromptError(
                    f"{arg('prompts')}: '{text[:60]}' has {count} tokens, start and end marks included; teacher "
                    f"'open_clip:{spec}' takes {tokens.shape[1]} at most: shorten it",
                    text,
                )
    return tokens


def _preprocess(model: Any, device: torch.device) -> Preprocess:
    """As the model's own settings say (model.visual.preprocess_cfg), older versions' attributes, or CLIP's."""
    visual = model.visual
    config = dict(getattr(visual, "preprocess_cfg", {}) or {})
    size = config.get("size", getattr(visual, "image_size", 224))
    size = size[0] if isinstance(size, (tuple, list)) else size
    mean = config.get("mean", getattr(visual, "image_mean", None)) or CLIP_MEAN
    std = config.get("std", getattr(visual, "image_std", None)) or CLIP_STD
    squash, mode = config.get("resize_mode", "shortest") == "squash", config.get("interpolation", "bicubic")
    return Preprocess(int(size), tuple(mean), tuple(std), device, squash=squash, mode=mode)
