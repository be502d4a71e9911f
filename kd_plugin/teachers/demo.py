"""The teacher behind `--kd=demo`: a tiny CLIP that knows only the drawings of the demo set. It is not CLIP.

It has the architecture of OpenAI's CLIP (a ViT for images of 32 x 32, two text layers, embeddings of width 64) and
goes through the same code, so that the whole method can be tried without a download. It was trained by
experiments/train_demo_teacher.py on drawings of a fish, house, tree, flower, boat or mushroom in red, yellow, green,
blue, purple or pink, with captions such as "a photo of a red fish", "a sketch of a boat" and "something pink". Of
photographs it knows nothing, and a word that no caption has embeds as if it were not there. For real images: --kd=clip.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_plugin.errors import TeacherError
from kd_plugin.teachers.openai_clip import OpenAIClip

__all__ = ["TABLES", "WEIGHTS", "load"]

WEIGHTS = Path(__file__).with_name("demo_clip.npz")

# Tables of which the file holds the used rows only, and their full height: of 49408 tokens the captions take
# about 40. Under NAME are the rows, under NAME.rows their numbers; all other rows are zero.
TABLES = {"token_embedding.weight": 49408, "positional_embedding": 77}


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
        for name, height in TABLES.items():
            weights[name] = _full_table(weights[name], weights.pop(f"{name}.rows"), height)
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise TeacherError(
            f"--kd=demo: {os.fspath(path)} cannot be read as the demo teacher's weights ({error!r}); reinstall "
            "kd_plugin, or write the file again with python -m experiments.train_demo_teacher"
        ) from error
    return OpenAIClip.from_state_dict(weights, "demo", device)


def _full_table(rows: Tensor, numbers: Tensor, height: int) -> Tensor:
    """[K, E] rows at `numbers` [K] of an otherwise zero [height, E]."""
    table = rows.new_zeros(height, rows.shape[1])
    table[numbers.long()] = rows
    return table
