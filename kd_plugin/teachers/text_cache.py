"""A cache on disk of text embeddings, by teacher and list of texts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from kd_plugin.download import cache_dir

__all__ = ["kept_texts"]


def kept_texts(key: str, texts: Sequence[str], compute: Callable[[], Tensor]) -> Tensor:
    """[P, E] float32 on the CPU: from the cache, else computed by `compute` and stored.

    A cache that cannot be read or written costs time, not the run.

    Args:
        key: all that the embeddings depend on besides the texts: the teacher's fingerprint and precision.
        texts: P of them, in order.
        compute: gives [P, E].
    """
    digest = hashlib.sha256(json.dumps([key, list(texts)]).encode()).hexdigest()
    path = cache_dir() / "texts" / f"{digest[:32]}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        kept = safetensors.torch.load_file(path)["embeddings"]
        if kept.ndim == 2 and len(kept) == len(texts):
            return kept
    embeddings = compute().detach().float().cpu().contiguous()
    with contextlib.suppress(OSError):
        _write(path, embeddings)
    return embeddings


def _write(path: Path, embeddings: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        safetensors.torch.save_file({"embeddings": embeddings}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
