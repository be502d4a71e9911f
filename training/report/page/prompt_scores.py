"""How well each prompt fits the training images and a run's samples, by the run's own teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_plugin.errors import KDError
from kd_plugin.teachers import TEACHERS, Teacher, load_teacher, split_spec
from training.data.dataset import ImageDataset
from training.data.pixels import to_float
from training.metrics import GeneratedImages
from training.metrics.samples import BATCH
from training.report.page.record import RunRecord

__all__ = ["PromptScore", "PromptScores", "prompt_scores", "teacher_of"]

_SURE = 2.0  # standard errors


@dataclass(frozen=True)
class PromptScore:
    """Mean cosine of a prompt with training images and with samples, and the standard error of the difference."""

    text: str
    real: float
    fake: float
    error: float

    @property
    def more(self) -> float:
        """By how much the samples have more of it than the training images."""
        return self.fake - self.real

    @property
    def is_sure(self) -> bool:
        return abs(self.more) > _SURE * self.error


@dataclass(frozen=True)
class PromptScores:
    """By the teacher that `spec` names; the prompts that fit the training images best first."""

    spec: str
    rows: Sequence[PromptScore]

    @property
    def largest(self) -> float:
        """Of the differences, whatever their sign."""
        return max(abs(row.more) for row in self.rows) or 1.0


def teacher_of(run: RunRecord) -> str | None:
    """The first teacher of one of our runs. None: it had none, or one that is somebody's code, which a report must not
    run."""
    if not run.is_ours or run.teacher == "none":
        return None
    _, spec = split_spec(run.teacher)[0]
    return spec if spec.partition(":")[0] in TEACHERS else None


def prompt_scores(run: RunRecord, source: GeneratedImages, train: ImageDataset, count: int) -> PromptScores | None:
    """
    Args:
        run: whose teacher and prompts are asked.
        source: of its samples.
        train: its training images.
        count: of samples, and at most of training images.

    Returns:
        None: it has no prompts, or its teacher cannot be loaded or takes no texts.
    """
    spec = teacher_of(run)
    if spec is None or not run.prompts:
        return None
    try:
        teacher = load_teacher(spec, source.device, "fp32")
        texts = torch.nn.functional.normalize(teacher.embed_texts(run.prompts), dim=1)
    except KDError:
        return None
    chosen = np.linspace(0, train.used - 1, min(train.used, count)).round().astype(int)
    reals = (torch.from_numpy(train.gather(part)[0]) for part in np.array_split(chosen, -(-len(chosen) // BATCH)))
    fakes = (job.make() for job in source.jobs(count, BATCH))
    real, fake = (torch.cat([_cosines(teacher, part, texts) for part in images]) for images in (reals, fakes))
    error = (real.var(0) / len(real) + fake.var(0) / len(fake)).sqrt()
    columns = (real.mean(0).tolist(), fake.mean(0).tolist(), error.tolist())
    rows = [PromptScore(*each) for each in zip(run.prompts, *columns, strict=True)]
    return PromptScores(spec, sorted(rows, key=lambda row: -row.real))


@torch.inference_mode()
def _cosines(teacher: Teacher, pixels: Tensor, texts: Tensor) -> Tensor:
    """[N, P] of uint8 images [N, 3, R, R] and texts [P, E] of length 1."""
    images = teacher.embed_images(to_float(pixels.to(texts.device)))
    return (torch.nn.functional.normalize(images, dim=1) @ texts.T).cpu()
