"""From images to the teacher's embeddings: which view it sees, what is cached, and whether the result can be used."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_plugin.errors import CaptureError, TeacherError, arg
from kd_plugin.finite_check import FiniteCheck
from kd_plugin.teachers.cache import EmbeddingCache
from kd_plugin.teachers.image_input import as_in_the_release, rgb
from kd_plugin.teachers.protocol import HasStages, Teacher
from kd_plugin.types import Captured

__all__ = ["Embedder"]


class Embedder:
    """Shows images to a teacher.

    Args:
        teacher: frozen.
        view: `seen` (what D saw) or `clean` (before augmentation).
        preprocess: `teacher` (its own) or `release` (as in the authors' published code).
    """

    def __init__(self, teacher: Teacher, view: str, preprocess: str) -> None:
        self.teacher, self.view, self._preprocess = teacher, view, preprocess
        self._cache = EmbeddingCache(teacher.embed_dim)
        self._finite = FiniteCheck()

    def check_capture(self, role: str, clean: Tensor | None) -> None:
        """
        Raises:
            CaptureError: the view `clean`, and no clean images.
        """
        if self.view == "clean" and clean is None:
            raise CaptureError(
                f"{arg('view', 'clean')}: capture('{role}') needs the images before augmentation; write "
                f"capture('{role}', clean=images)"
            )

    def embed_captured(self, real: Captured, fake: Captured) -> Tensor:
        """[N + M, E], real then fake: in one call if the sizes agree; cached for real images with keys.

        Even when most are cached, the teacher is called with whole batches: the last bits of a row depend on the batch
        size, and a resumed run, whose cache is empty, must repeat the original one exactly.

        Raises:
            CaptureError: the view `seen`, and D was given no image tensor.
        """
        real_images, fake_images = self._shown(real), self._shown(fake)
        if real.keys is not None:
            fakes = self.embed(fake_images)
            return torch.cat([self.embed_cached(real_images, real.keys).to(fakes), fakes])
        if real_images.shape[1:] != fake_images.shape[1:]:
            return torch.cat([self.embed(real_images), self.embed(fake_images)])
        return self.embed(torch.cat([real_images, fake_images]))

    def embed_cached(self, images: Tensor, keys: Tensor | None) -> Tensor:
        """As `embed`; with keys [N], without gradient, and each distinct image is embedded only once."""
        if keys is None:
            return self.embed(images)
        if new := self._cache.missing(keys):
            self._cache.put(keys[new], self.embed(images)[new])
        rows = self._cache.get(keys)
        # A copy from pinned memory to a GPU does not wait for the work already queued there.
        return rows.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else rows.to(images.device)

    def embed(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [-1, 1] -> [N, E], differentiable.

        Raises:
            TeacherError: embeddings that are not finite or not [N, E].
        """
        return self._checked(self.teacher.embed_images(self._input(images)), images)

    def embed_for_generator(
        self, images: Tensor, stages: bool, keys: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `embed`, and, if `stages`, the intermediate features [N, C, h, w] of the same pass (not cached)."""
        return self._embed_with_stages(images) if stages else (self.embed_cached(images, keys), ())

    def _embed_with_stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(self.teacher, HasStages)  # checked when the term was attached
        embeddings, stages = self.teacher.embed_with_stages(self._input(images))
        for number, stage in enumerate(stages):
            if stage.ndim != 4 or len(stage) != len(images):
                raise TeacherError(
                    f"teacher '{self.teacher.name}' gave stage {number} in the shape {list(stage.shape)}; expected "
                    f"[{len(images)}, C, h, w]"
                )
        return self._checked(embeddings, images), tuple(stage.float() for stage in stages)

    def _input(self, images: Tensor) -> Tensor:
        shown = rgb(images)
        return as_in_the_release(shown, self.teacher) if self._preprocess == "release" else shown

    def _shown(self, captured: Captured) -> Tensor:
        """The images of one role that the teacher sees."""
        if self.view == "clean":
            assert captured.clean is not None  # check_capture()
            return captured.clean
        if captured.seen is None:
            raise CaptureError(
                f"{arg('view', 'seen')}: D was given no image tensor [N, C, H, W]; use {arg('view', 'clean')}"
            )
        return captured.seen

    def _checked(self, embeddings: Tensor, images: Tensor) -> Tensor:
        expected = (len(images), self.teacher.embed_dim)
        if tuple(embeddings.shape) != expected:
            raise TeacherError(
                f"teacher '{self.teacher.name}' gave image embeddings of the shape {list(embeddings.shape)}; expected "
                f"{list(expected)}"
            )
        if not self._finite(embeddings):
            culprit = f"from the teacher '{self.teacher.name}'" if images.isfinite().all() else "in the images it saw"
            raise TeacherError(f"NaN or infinity {culprit}: its embeddings cannot be distilled")
        return embeddings
