"""How well each prompt fits the training images and a run's samples, by the run's own teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from kd_plugin.errors import KDError
from kd_plugin.teachers import Teacher

__all__ = ["PromptScore", "PromptScores", "prompt_scores"]

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


def prompt_scores(teacher: Teacher, prompts: Sequence[str], real: Tensor, fake: Tensor) -> PromptScores | None:
    """
    Args:
        teacher: of the run.
        prompts: that it used.
        real, fake: its embeddings of training images and samples, [N, E] each.

    Returns:
        None: there are no prompts, or the teacher takes no texts.
    """
    if not prompts:
        return None
    try:
        texts = functional.normalize(teacher.embed_texts(prompts), dim=1).cpu()
    except KDError:
        return None
    of_real, of_fake = (functional.normalize(images, dim=1) @ texts.T for images in (real, fake))
    error = (of_real.var(0) / len(of_real) + of_fake.var(0) / len(of_fake)).sqrt()
    columns = (of_real.mean(0).tolist(), of_fake.mean(0).tolist(), error.tolist())
    rows = [PromptScore(*each) for each in zip(prompts, *columns, strict=True)]
    return PromptScores(teacher.name, sorted(rows, key=lambda row: -row.real))
