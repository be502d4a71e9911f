"""A cache on disk of text embeddings, by teacher and list of texts."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from kd_plugin.download import cache_dir
from kd_plugin.files import write_whole

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
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, safetensors.torch.save({"embeddings": embeddings}))
    return embeddings
