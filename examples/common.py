"""Loading images and saving samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def load_images(folder: str, size: int) -> tuple[Tensor, Tensor, list[str]]:
    """All images below `folder`: [N, 3, size, size] in [-1, 1], their classes [N] (by sub-folder), their names."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no images in '{folder}'")
    names = sorted({path.parent.name for path in paths})
    pictures = [
        np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)) for path in paths
    ]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, torch.tensor([names.index(path.parent.name) for path in paths]), names


def save_samples(images: Tensor, path: str, columns: int = 8) -> None:
    """[N, 3, H, W] in [-1, 1] as one picture."""
    images = images[: len(images) // columns * columns].detach().cpu()
    n, _, h, w = images.shape
    grid = images.view(n // columns, columns, 3, h, w).permute(0, 3, 1, 4, 2).reshape(n // columns * h, columns * w, 3)
    Image.fromarray(((grid + 1) * 127.5).clamp(0, 255).byte().numpy()).save(path)
