"""From images to the teacher's embeddings: which view it sees, what is cached, and whether the result can be used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_plugin.diffaugment import DiffAugment
from kd_plugin.errors import CaptureError, TeacherError, arg
from kd_plugin.finite_check import FiniteCheck
from kd_plugin.teachers.cache import LIMIT, EmbeddingCache
from kd_plugin.teachers.image_input import as_in_the_release, rgb
from kd_plugin.teachers.image_range import STANDARD, ImageRange
from kd_plugin.teachers.protocol import HasStages, Teacher
from kd_plugin.types import Captured, Role, StageView

__all__ = ["Embedder"]

_PROBE_SIZE = 64  # pixels
_WORDS = ("embedding", "stages", "auto")  # of the options that list stages


class Embedder:
    """Shows images to a teacher.

    Args:
        teacher: frozen.
        view: `seen` (what D saw), `clean` (before augmentation), or `auto` (clean where such images are given).
        preprocess: `teacher` (its own) or `release` (as in the authors' published code).
        image_range: of the images it is given.
    """

    def __init__(
        self, teacher: Teacher, view: str, preprocess: str, image_range: tuple[float, float] = STANDARD
    ) -> None:
        self.teacher, self.view, self._preprocess = teacher, view, preprocess
        self._range = ImageRange.of(image_range)
        self._embeddings = EmbeddingCache(teacher.embed_dim)
        self._caches: dict[StageView | None, EmbeddingCache] = {}
        self._shapes: dict[str, tuple[int, int, int]] = {}
        self._has_clean: bool | None = None  # whether captures have clean images
        self._finite = FiniteCheck()

    def check_capture(self, roles: Sequence[str], clean: Tensor | None) -> None:
        """
        Raises:
            CaptureError: no clean images, with the view `clean`; with `auto`, only some of the blocks have them.
        """
        if self.view == "seen":
            return
        if self._has_clean is None:
            self._has_clean = clean is not None or self.view == "clean"
        if self._has_clean == (clean is not None):
            return
        block = f"'{roles[0]}'" if len(roles) == 1 else str(tuple(roles))
        if clean is None:
            raise CaptureError(
                f"{arg('view', self.view)}: capture({block}) needs the images before augmentation"
                f"{'' if self.view == 'clean' else ', as earlier blocks had'}; write capture({block}, clean=images)"
            )
        raise CaptureError(
            f"{arg('view', self.view)}: capture({block}) has the images before augmentation, but earlier blocks had "
            "none; give them in all blocks (clean=images) or in none"
        )

    def watch_real(self, images: Tensor, augmented: bool) -> None:
        """Warns once if real images, as this teacher sees them, are in another range than was stated."""
        self._range.watch(images, augmented=augmented)

    def augmented(self, images: Tensor, augment: DiffAugment, draws: torch.Generator) -> Tensor:
        """Images in the image range, augmented as if that were [-1, 1]."""
        return self._range.from_standard(augment(self._range.standard(images), draws))

    def embed_captured(self, real: Captured, fake: Captured) -> Tensor:
        """[N + M, E], real then fake: in one call if the sizes agree; cached for real images with keys.

        Even when most are cached, the teacher is called with whole batches: the last bits of a row depend on the batch
        size, and a resumed run, whose cache is empty, must repeat the original one exactly.

        Raises:
            CaptureError: no clean images, and D was given no image tensor.
        """
        real_images, fake_images = self._shown(real), self._shown(fake)
        self.watch_real(real_images, augmented=not self._shows_clean(real))
        if real.keys is not None:
            fakes = self.embed(fake_images)
            return torch.cat([self.embed_cached(real_images, real.keys).to(fakes), fakes])
        if real_images.shape[1:] != fake_images.shape[1:]:
            return torch.cat([self.embed(real_images), self.embed(fake_images)])
        return self.embed(torch.cat([real_images, fake_images]))

    def embed_role(self, role: Role, captured: Captured) -> Tensor:
        """[N, E] of one role; cached for images with keys.

        Raises:
            CaptureError: as `embed_captured`.
        """
        images = self._shown(captured)
        if role == "real":
            self.watch_real(images, augmented=not self._shows_clean(captured))
        return self.embed_cached(images, captured.keys)

    def embed_cached(self, images: Tensor, keys: Tensor | None) -> Tensor:
        """As `embed`; with keys [N], without gradient, and each distinct image is embedded only once."""
        if keys is None:
            return self.embed(images)
        if self._embeddings.missing(keys):
            self._embeddings.put_missing(keys, self.embed(images))
        return _to_device(self._embeddings.get(keys), images)

    def embed(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in the image range -> [N, E], differentiable.

        Raises:
            TeacherError: embeddings that are not finite or not [N, E].
        """
        return self._checked(self.teacher.embed_images(self._input(images)), images)

    @torch.no_grad()
    def stage_shapes(self, device: torch.device) -> dict[str, tuple[int, int, int]]:
        """C, h and w of the teacher's stages, early to late, for images of 64 x 64 on `device`; {} if it has none."""
        names = self.teacher.stage_names if isinstance(self.teacher, HasStages) else ()
        if names:
            self._check_names(names)
            _, maps = self._embed_maps(torch.zeros(2, 3, _PROBE_SIZE, _PROBE_SIZE, device=device), names)
            self._shapes = {name: (stage.shape[1], stage.shape[2], stage.shape[3]) for name, stage in maps.items()}
        return self._shapes

    def embed_with_stages(
        self, images: Tensor, views: Sequence[StageView], keys: Tensor | None = None
    ) -> tuple[Tensor, dict[StageView, Tensor]]:
        """As `embed_cached`, and views of the teacher's stages in the same pass, [N, C, h, w] each.

        With keys, views that have a grid are cached too: 4 C grid grid bytes per image. Call `stage_shapes()` first.

        Raises:
            TeacherError: stages that are not maps, are smaller than their grid, or change their number of channels.
        """
        if not views:
            return self.embed_cached(images, keys), {}
        if keys is None or not all(view.grid for view in views):
            return self._embed_views(images, views)
        caches = self._caches_for(views)
        if any(cache.missing(keys) for cache in caches.values()):
            embeddings, stages = self._embed_views(images, views)
            for view, cache in caches.items():
                cache.put_missing(keys, embeddings if view is None else stages[view].flatten(1))
        rows = {view: _to_device(cache.get(keys), images) for view, cache in caches.items()}
        cells = {view: rows[view].view(len(images), -1, view.grid, view.grid) for view in views}
        return rows[None], cells

    def _caches_for(self, views: Sequence[StageView]) -> dict[StageView | None, EmbeddingCache]:
        """One for the embeddings (None) and one for each view; together they keep what one cache keeps in memory.

        The embeddings are not those of `embed_cached`: which of the two passes is the first to see an image differs
        between a run and its continuation, and so would the last bits of a teacher that computes them in two ways.
        """
        if not self._caches:
            limit = LIMIT // (1 + len(views))
            self._caches[None] = EmbeddingCache(self.teacher.embed_dim, limit)
            for view in views:
                self._caches[view] = EmbeddingCache(self._shapes[view.stage][0] * view.grid**2, limit)
        return self._caches

    def _check_names(self, names: tuple[str, ...]) -> None:
        """Options list stages by name, between commas."""
        for name in names:
            if names.count(name) > 1 or "," in name or name.strip() != name or name in ("", *_WORDS):
                raise TeacherError(
                    f"teacher '{self.teacher.name}' has stages called {', '.join(map(repr, names))}; the names must "
                    f"differ, hold no comma, and be neither {' nor '.join(map(repr, _WORDS))}"
                )

    def _embed_views(self, images: Tensor, views: Sequence[StageView]) -> tuple[Tensor, dict[StageView, Tensor]]:
        embeddings, maps = self._embed_maps(images, tuple(dict.fromkeys(view.stage for view in views)))
        for name, grid in ((view.stage, view.grid) for view in views):
            if maps[name].shape[1] != self._shapes[name][0] or min(maps[name].shape[2:]) < grid:
                raise TeacherError(
                    f"teacher '{self.teacher.name}' gave {name} in the shape {list(maps[name].shape)} for images "
                    f"{list(images.shape)}; expected {self._shapes[name][0]} channels, as before, and at least "
                    f"{max(grid, 1)} places on a side, because a term averages it in that grid; set a smaller one, "
                    f"such as {arg('match_grid', 1)}, or give larger images"
                )
        return embeddings, {view: view.of(maps[view.stage]) for view in views}

    def _embed_maps(self, images: Tensor, names: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(self.teacher, HasStages)  # else stage_shapes() is empty
        embeddings, stages = self.teacher.embed_with_stages(self._input(images), names)
        if len(stages) != len(names):
            raise TeacherError(f"teacher '{self.teacher.name}' gave {len(stages)} stages when asked for {len(names)}")
        for name, stage in zip(names, stages, strict=True):
            if stage.ndim != 4 or len(stage) != len(images):
                raise TeacherError(
                    f"teacher '{self.teacher.name}' gave {name} in the shape {list(stage.shape)}; expected "
                    f"[{len(images)}, C, h, w]"
                )
        maps = {name: stage.float() for name, stage in zip(names, stages, strict=True)}
        return self._checked(embeddings, images), maps

    def _input(self, images: Tensor) -> Tensor:
        shown = rgb(self._range.standard(images))
        return as_in_the_release(shown, self.teacher) if self._preprocess == "release" else shown

    def _shown(self, captured: Captured) -> Tensor:
        """The images of one role that the teacher sees."""
        if self._shows_clean(captured):
            assert captured.clean is not None
            return captured.clean
        if captured.seen is None:
            raise CaptureError(
                f"{arg('view', self.view)}: D was given no image tensor [N, C, H, W]; use {arg('view', 'clean')} and "
                "capture(..., clean=images)"
            )
        return captured.seen

    def _shows_clean(self, captured: Captured) -> bool:
        return self.view != "seen" and captured.clean is not None

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


def _to_device(rows: Tensor, like: Tensor) -> Tensor:
    """Rows from a cache. A copy from pinned memory to a GPU does not wait for the work already queued there."""
    return rows.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else rows.to(like.device)
