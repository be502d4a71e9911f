"""How far images are from a target, for people or for a network that sees like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_plugin.teachers import TEACHERS
from kd_plugin.teachers.protocol import HasStages
from training.metrics.detectors import load_judge, load_perceptual

__all__ = ["PIXELS", "load_likeness"]

PIXELS = "pixels"
_LARGEST = 256  # pixels that a perceptual network sees
Features = Callable[[Tensor], Tensor]


def load_likeness(spec: str, device: torch.device) -> Features:
    """Images [N, C, H, W] in [-1, 1] to features [N, F], differentiably; the squared distance of two images' features
    is their distance.

    Args:
        spec: vgg16 (LPIPS: Zhang et al. 2018, arXiv 1801.03924) or a TorchScript file that is called like it; a
            teacher, whose stages and embedding are compared; or pixels.
        device: where it runs.

    Raises:
        UserError: it cannot be found or read.
    """
    if spec == PIXELS:
        return _pixels
    if spec.partition(":")[0] in TEACHERS:
        return _of_teacher(spec, device)
    network = load_perceptual(spec, device, "--detector").features

    def features(images: Tensor) -> Tensor:
        smaller = F.interpolate(images, (_LARGEST, _LARGEST), mode="area") if images.shape[2] > _LARGEST else images
        found: Tensor = network((_rgb(smaller) + 1) * 127.5)
        return found

    return features


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def _pixels(images: Tensor) -> Tensor:
    """At all sizes down to 4x4, each counting the same."""
    sizes = []
    while images.shape[2] >= 4:
        sizes.append(images.flatten(1) / images[0].numel() ** 0.5)
        images = F.avg_pool2d(images, 2)
    return torch.cat(sizes, 1)


def _of_teacher(spec: str, device: torch.device) -> Features:
    teacher: Any = load_judge(spec, device)
    names = tuple(teacher.stage_names) if isinstance(teacher, HasStages) else ()

    def features(images: Tensor) -> Tensor:
        images = _rgb(images)
        embedding, stages = teacher.embed_with_stages(images, names) if names else (teacher.embed_images(images), ())
        parts = [F.normalize(embedding)]
        for stage in stages:  # directions of the features at each place, as LPIPS compares them
            parts.append(F.normalize(stage, dim=1).flatten(1) / stage[0, 0].numel() ** 0.5)
        return torch.cat(parts, 1)

    return features
