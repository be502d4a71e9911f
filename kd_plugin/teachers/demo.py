"""The teacher behind `--kd=demo`: a tiny CLIP that knows only the drawings of the demo set. It is not CLIP.

It has the architecture of OpenAI's CLIP (a ViT for images of 32 x 32, one text layer, a context of 16 tokens,
embeddings of width 64) and goes through the same code, so that the whole method can be tried without a download. It was
trained by experiments/train_demo_teacher.py on drawings of cats, owls, fish, butterflies, houses, boats, flowers and
mushrooms, with captions such as "a photo of two red owls at night" and "a small thing in the snow". Of photographs it
knows nothing, and a word that no caption has embeds as if it were not there. For real images: --kd=clip.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from kd_plugin.errors import TeacherError, arg
from kd_plugin.teachers.openai_clip import OpenAIClip

__all__ = ["TOKEN_IDS", "WEIGHTS", "load"]

WEIGHTS = Path(__file__).with_name("demo_clip.npz")

# Of the 49,408 tokens the captions take about 70. The file holds the embeddings of these only, and their ids.
TOKEN_IDS = "token_ids"
_TOKENS = "token_embedding.weight"
_VOCAB_SIZE = 49408


def load(device: torch.device | str = "cpu", path: str | os.PathLike[str] = WEIGHTS) -> OpenAIClip:
    """The demo teacher on `device`.

    Args:
        device: where it shall live and compute.
        path: an .npz of float16 weights as train_demo_teacher.py writes it, by default the one that is shipped.

    Raises:
        TeacherError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        used = weights[_TOKENS]
        weights[_TOKENS] = used.new_zeros(_VOCAB_SIZE, used.shape[1])  # [49408, width]
        weights[_TOKENS][weights.pop(TOKEN_IDS).long()] = used
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise TeacherError(
            f"{arg('teacher', 'demo')}: {os.fspath(path)} cannot be read as the demo teacher's weights ({error!r}); "
            "reinstall "
            "kd_plugin, or write the file again with python -m experiments.train_demo_teacher"
        ) from error
    return OpenAIClip.from_state_dict(weights, "demo", device, "QuickGELU")
