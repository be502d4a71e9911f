"""What the tests in real checkouts share: images, and a hash of weights."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

__all__ = ["hashed", "write_images"]


def write_images(path: Path) -> None:
    """A zip of 12 images of noise, 32 x 32."""
    numbers = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(12):
            content = io.BytesIO()
            Image.fromarray(numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(content, "PNG")
            archive.writestr(f"{k}.png", content.getvalue())


def hashed(modules: Iterable[nn.Module]) -> str:
    """Of all their weights and buffers."""
    digest = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
