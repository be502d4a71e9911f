"""Teachers of the published sizes with random weights: they cost what the real ones cost, and know nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from kd_plugin import load_teacher
from kd_plugin.teachers.clip_package import _load
from kd_plugin.teachers.protocol import Teacher

__all__ = ["SIZES", "random_teacher", "write_random_clip"]

# Of OpenAI's CLIPs: embedding, image side, layers, width, patch (None: a ResNet), width of the text transformer.
_CLIPS: dict[str, tuple[Any, ...]] = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024),
    "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
}
# Of transformers: class, configuration, preprocessing.
_SQUARE = {"height": 224, "width": 224}
_HF: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "facebook/dinov2-small": (
        "Dinov2",
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14},
        {"size": {"shortest_edge": 256}, "crop_size": _SQUARE, "do_center_crop": True},
    ),
    "facebook/dinov2-base": (
        "Dinov2",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 518, "patch_size": 14},
        {"size": {"shortest_edge": 256}, "crop_size": _SQUARE, "do_center_crop": True},
    ),
    "google/siglip-base-patch16-224": ("Siglip", {}, {"size": _SQUARE}),
}
SIZES = (*_CLIPS, *_HF)


def write_random_clip(size: str, path: Path) -> None:
    """As OpenAI's files: in half precision."""
    embed, side, layers, width, patch, text = _CLIPS[size]
    model = _load("model").CLIP(embed, side, layers, width, patch, 77, 49408, text, text // 64, 12)
    torch.save(dict(model.half().state_dict()), path)


def random_teacher(size: str, device: torch.device, precision: str = "auto") -> Teacher:
    """Loaded through the code that loads the real one."""
    with tempfile.TemporaryDirectory() as folder:
        if size in _CLIPS:
            path = Path(folder) / "random.pt"
            write_random_clip(size, path)
            return load_teacher(f"clip:{path}", device, precision)
        import transformers

        kind, options, preprocessing = _HF[size]
        config = getattr(transformers, f"{kind}Config")(**options)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
        return load_teacher(f"hf:{folder}", device, precision)
