"""The texts that images are compared with, and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_plugin.errors import PromptError, TeacherError, arg
from kd_plugin.teachers.protocol import Teacher

__all__ = ["PromptBank"]


class PromptBank:
    """Texts and their embeddings, computed by the teacher on first use and kept.

    Args:
        texts: at least one; duplicates are dropped, the order is kept.
        teacher: borrowed.

    Raises:
        PromptError: no text, or one string in place of a list of strings.
    """

    def __init__(self, texts: Sequence[str], teacher: Teacher) -> None:
        if isinstance(texts, str):
            raise PromptError(f"prompts: expected a list of texts, got the one text '{texts}'; write ['{texts}', ...]")
        self.texts = tuple(dict.fromkeys(texts))
        if not self.texts:
            raise PromptError(f"{arg('prompts')}: no prompt was given; give at least one text")
        self.teacher = teacher
        self._embeddings: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def embeddings(self, device: torch.device | str | None = None) -> Tensor:
        """[P, E] on `device` (default: where the teacher put them), without gradient.

        Raises:
            PromptError: a text that the teacher cannot take.
            TeacherError: embeddings of another shape, or not finite.
        """
        if self._embeddings is None:
            with torch.no_grad():
                embeddings = self.teacher.embed_texts(self.texts).detach()
            expected = (len(self.texts), self.teacher.embed_dim)
            if tuple(embeddings.shape) != expected:
                raise TeacherError(
                    f"teacher '{self.teacher.name}' gave text embeddings of the shape {list(embeddings.shape)}; "
                    f"expected {list(expected)}"
                )
            if not torch.isfinite(embeddings).all():
                raise TeacherError(f"teacher '{self.teacher.name}' gave text embeddings with NaN or infinity")
            self._embeddings = embeddings
        if device is not None:
            self._embeddings = self._embeddings.to(device)
        return self._embeddings
