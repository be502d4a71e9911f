"""A teacher whose embedding also says what its intermediate stages saw, as AGKD's target.

BASE_TEACHER=script:FILE.pt python train.py --kd=studies.stage_teacher:make --kd-cgkd=0
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

import kd_plugin
from kd_plugin.teachers.protocol import HasStages, Teacher

__all__ = ["StageTeacher", "make"]


class StageTeacher:
    """The embedding of another teacher, then the means of its stages' channels in each quarter of the image.

    Args:
        base: a teacher with stages.
        device: its device.
    """

    vocabulary: tuple[str, ...] | None = ()

    def __init__(self, base: Teacher, device: torch.device) -> None:
        assert isinstance(base, HasStages)
        self._base: HasStages = base
        self.stage_names = base.stage_names
        self.name, self.fingerprint = f"{base.name} with stages", base.fingerprint
        with torch.no_grad():
            self.embed_dim = self.embed_images(torch.zeros(1, 3, 32, 32, device=device)).shape[1]

    def embed_images(self, images: Tensor) -> Tensor:
        return self.embed_with_stages(images, ())[0]

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Sequence[Tensor]]:
        embedding, stages = self._base.embed_with_stages(images, self.stage_names)
        quarters = [torch.nn.functional.adaptive_avg_pool2d(stage, 2).flatten(1) for stage in stages]
        maps = dict(zip(self.stage_names, stages, strict=True))
        return torch.cat([embedding, *quarters], dim=1), [maps[name] for name in names]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        raise kd_plugin.TeacherError("this teacher has no texts")


def make(device: torch.device) -> StageTeacher:
    return StageTeacher(kd_plugin.load_teacher(os.environ["BASE_TEACHER"], device=device), device)
