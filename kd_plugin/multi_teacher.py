"""Several teachers at once: each has its own head and terms; their losses are added with weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kd_plugin.distiller import Distiller
from kd_plugin.interface import AnyDistiller, RunD
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.student.rows import Roles
from kd_plugin.teachers.protocol import Teacher
from kd_plugin.terms import Needs, TermInfo
from kd_plugin.types import Distilled

__all__ = ["MultiTeacherDistiller"]


class MultiTeacherDistiller(AnyDistiller):
    """Reports terms as weighted sums under their names, and unweighted as `name/teacher`.

    Where the host carries the gradients, a teacher is balanced relative to its gradient and what the others have added.

    Args:
        members: weight and distiller of each teacher.
    """

    def __init__(self, members: Sequence[tuple[float, Distiller]]) -> None:
        super().__init__()
        self.shares = tuple(share for share, _ in members)
        self.members = nn.ModuleList(distiller for _, distiller in members)

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        return tuple(distiller.teacher for _, distiller in self._all())

    @property
    def prompts(self) -> PromptBank | None:
        """Those of the first teacher that reads texts."""
        return next((distiller.prompts for _, distiller in self._all() if distiller.prompts is not None), None)

    @property
    def terms_info(self) -> tuple[TermInfo, ...]:
        """Parts are those of all teachers together."""
        infos: dict[str, TermInfo] = {}
        for info in (info for _, distiller in self._all() for info in distiller.terms_info):
            known = infos.get(info.name, info)
            infos[info.name] = dataclasses.replace(known, parts=tuple(dict.fromkeys((*known.parts, *info.parts))))
        return tuple(infos.values())

    @property
    def view(self) -> str:
        return next(self._all())[1].view

    @property
    def generator_needs(self) -> Needs:
        return Needs.union(distiller.generator_needs for _, distiller in self._all())

    @property
    def latest(self) -> dict[str, Tensor]:
        return self._sum_terms([distiller.latest for _, distiller in self._all()])

    def begin_step(self) -> None:
        for _, distiller in self._all():
            distiller.begin_step()

    @contextmanager
    def capture(
        self, roles: Roles, clean: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> Iterator[None]:
        with ExitStack() as stack:
            for _, distiller in self._all():
                stack.enter_context(distiller.capture(roles, clean, keys, loss_scale))
            yield

    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        return self._sum([distiller(adversarial) for _, distiller in self._all()])

    def for_generator(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        adversarial: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Distilled:
        return self._sum([distiller.for_generator(fake, real, adversarial, keys) for _, distiller in self._all()])

    def guided(
        self, fake: Tensor, real: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> Tensor:
        for _, distiller in self._all():
            fake = distiller.guided(fake, real, keys, loss_scale)
        return fake

    def explained(self) -> dict[str, float]:
        """As for one teacher, by term and teacher; `total` is the mean over the teachers by their weights."""
        return self._mean([distiller.explained() for _, distiller in self._all()])

    def held_out(self, images: Tensor, batch: int) -> Callable[[RunD], dict[str, float]]:
        watched = [distiller.held_out(images, batch) for _, distiller in self._all()]
        return lambda run: self._mean([explained(run) for explained in watched])

    def _all(self) -> Iterator[tuple[float, Distiller]]:
        for share, distiller in zip(self.shares, self.members, strict=True):
            assert isinstance(distiller, Distiller)
            yield share, distiller

    def _sum(self, parts: Sequence[Distilled]) -> Distilled:
        total = torch.stack([share * part.total for share, part in zip(self.shares, parts, strict=True)]).sum()
        # The outputs of the first lie before those that the others see, so gradients there include all.
        terms = self._sum_terms([part.terms for part in parts])
        return Distilled(total, terms, next((part.outputs for part in parts if part.outputs), ()))

    def _sum_terms(self, parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for share, teacher, part in zip(self.shares, self.teachers, parts, strict=True):
            for name, value in part.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + share * value
                terms[f"{name}/{teacher.name}"] = value
        return terms

    def _mean(self, shares: Sequence[dict[str, float]]) -> dict[str, float]:
        there = [(w, t.name, s) for w, t, s in zip(self.shares, self.teachers, shares, strict=True) if s]
        if not there:
            return {}
        mean = {"total": sum(w * share["total"] for w, _, share in there) / sum(w for w, _, _ in there)}
        for _, teacher, share in there:
            mean |= {f"{name}/{teacher}": value for name, value in share.items() if name != "total"}
        return mean
