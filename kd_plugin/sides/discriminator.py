"""The terms of D: from captured features and the teacher's embeddings to their losses, and how much D has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import weighted
from kd_plugin.config.kd import KDConfig
from kd_plugin.diagnostics import Errors, fraction_explained
from kd_plugin.errors import CaptureError, arg
from kd_plugin.interface import RunD
from kd_plugin.normalization import Normalization
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.student.rows import Rows
from kd_plugin.student.tap import FeatureTap
from kd_plugin.teachers.embedder import Embedder
from kd_plugin.terms import ComparisonTerm, DiscriminatorStep, Term
from kd_plugin.types import ROLES, Captured, Distilled, Pairs, Role

__all__ = ["Borrowed", "DiscriminatorSide"]


@dataclass(frozen=True)
class Borrowed:
    """What a distiller uses but does not own. Inside a dataclass, nn.Module does not register any of it."""

    tap: FeatureTap  # on the student feature
    embedder: Embedder
    prompts: PromptBank | None  # None if no active term needs texts

    def texts(self, like: Tensor) -> Tensor | None:
        """[P, E] of the type and device of `like`."""
        return None if self.prompts is None else self.prompts.embeddings(like.device).to(like)


class DiscriminatorSide:
    """Compares D with the teacher.

    Args:
        borrowed: tap on D, teacher and prompts.
        head: [N, F] -> [N, E].
        normalization: of the teacher's embeddings.
        terms: those of D, by name.
        config: their weights, the chance of crossed pairs, and the control experiment.
    """

    def __init__(
        self,
        borrowed: Borrowed,
        head: nn.Module,
        normalization: Normalization,
        terms: Mapping[str, Term],
        config: KDConfig,
    ) -> None:
        self._borrowed, self._head, self._normalization = borrowed, head, normalization
        self.terms, self._weights = terms, config.weights
        self._shuffled, self._may_cross = config.control == "shuffle", config.p > 0
        self._latest: dict[Role, Pairs] = {}  # of blocks that were carried

    def distilled(self, captured: Mapping[Role, Captured], crossed: bool) -> Distilled:
        """Of a step whose roles were both captured; not yet balanced."""
        self._check_numbers(*(len(captured[role].features) for role in ROLES))
        outputs = tuple(output for seen in captured.values() for output in seen.outputs)
        return self._weighted(self._joint_step(captured, crossed), outputs)

    def distilled_of(self, captured: Mapping[Role, Captured], crossed: bool, fresh: bool) -> Distilled | None:
        """Of one block, whose images are those of one role or both.

        One role stands beside the other role's latest rows, which are given no gradient. The sum over both roles has
        the gradients of `distilled`, except that the first role of a step meets the other one's images of the step
        before.

        Args:
            fresh: whether the other role was captured in this step already.

        Returns:
            None before the other role was ever captured.
        """
        if len(captured) == len(ROLES):
            return self.distilled(captured, crossed)
        ((role, own),) = captured.items()
        step = self._role_step(role, own, crossed, fresh)
        return None if step is None else self._weighted(step, own.outputs)

    def state_dict(self) -> dict[str, Any]:
        """The rows that the next role will meet."""
        return {role: (pairs.student, pairs.teacher) for role, pairs in self._latest.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self._borrowed.tap.device
        self._latest = {
            role: Pairs(*(rows.to(device) for rows in state[role])) for role in ROLES if role in state
        }  # fmt: skip

    def explained(self) -> dict[str, float]:
        return self._explained({name: term.recent_errors() for name, term in self._comparisons()})

    @torch.no_grad()
    def held_out(self, images: Tensor, batch: int) -> Callable[[RunD], dict[str, float]]:
        compares, embed = any(self._comparisons()), self._borrowed.embedder.embed
        embeddings = torch.cat([embed(part) for part in torch.split(images, batch)]) if compares else None
        return lambda run: self._explained_on(images, embeddings, run)

    @torch.no_grad()
    def _explained_on(self, images: Tensor, embeddings: Tensor | None, run: RunD) -> dict[str, float]:
        if embeddings is None:
            run(images)
            return {}
        tap = self._borrowed.tap
        with tap.capture(Rows.of("real")):
            run(images)
        training = self._head.training
        student = self._head.eval()(
            tap.release(("real",))["real"].features
        )  # in eval mode a spectral norm is not updated
        self._head.train(training)
        pairs = Pairs(student, embeddings.to(student))
        step = DiscriminatorStep(pairs, len(pairs), self._borrowed.texts(student), False, self._normalization)
        return self._explained({name: term.errors(step) for name, term in self._comparisons()})

    def _weighted(self, step: DiscriminatorStep, outputs: tuple[Tensor, ...]) -> Distilled:
        losses = {name: term.discriminator_loss(step) for name, term in self.terms.items()}
        return weighted(losses, self._weights, outputs)

    def _joint_step(self, captured: Mapping[Role, Captured], crossed: bool) -> DiscriminatorStep:
        """Rows are computed once for both roles, real then fake."""
        real = len(captured["real"].features)
        student = self._head(torch.cat([captured[role].features for role in ROLES]))
        with torch.no_grad():
            teacher = self._borrowed.embedder.embed_captured(captured["real"], captured["fake"]).to(student)
            self._normalization.observe(teacher)
            teacher = self._controlled(teacher, real)
        pairs = Pairs(student, teacher)
        return DiscriminatorStep(pairs, real, self._borrowed.texts(student), crossed, self._normalization)

    def _role_step(self, role: Role, captured: Captured, crossed: bool, fresh: bool) -> DiscriminatorStep | None:
        student = self._head(captured.features)
        with torch.no_grad():
            teacher = self._borrowed.embedder.embed_role(role, captured).to(student)
            self._normalization.observe(teacher)
            teacher = self._controlled(teacher, len(teacher))
        both = {**self._latest, role: Pairs(student, teacher)}
        self._latest[role] = Pairs(student.detach(), teacher)
        if len(both) < len(ROLES):
            return None
        numbers = [len(both[role]) for role in ROLES]
        if fresh:
            self._check_numbers(*numbers)
        crossed = crossed and numbers[0] == numbers[1]  # the last batch of an epoch may be smaller
        pairs = Pairs(
            torch.cat([both[role].student for role in ROLES]), torch.cat([both[role].teacher for role in ROLES])
        )
        return DiscriminatorStep(
            pairs, numbers[0], self._borrowed.texts(student), crossed, self._normalization, (role,)
        )  # fmt: skip

    def _controlled(self, teacher: Tensor, real: int) -> Tensor:
        """Of each role; batches are random, so a neighbour is a random other image."""
        if not self._shuffled:
            return teacher
        return torch.cat([teacher[:real].roll(1, dims=0), teacher[real:].roll(1, dims=0)])

    def _check_numbers(self, real: int, fake: int) -> None:
        """Crossed pairs need equal batches. Checked also in steps that do not cross, so errors come early."""
        if real != fake and self._may_cross and any(term.needs.other_batch for term in self.terms.values()):
            raise CaptureError(
                f"{real} real and {fake} fake images were captured, but crossed pairs need equal numbers; "
                f"give D equal batches, or set {arg('p', 0)}"
            )

    def _comparisons(self) -> Iterator[tuple[str, ComparisonTerm]]:
        return ((name, term) for name, term in self.terms.items() if isinstance(term, ComparisonTerm))

    def _explained(self, errors: Mapping[str, Errors | None]) -> dict[str, float]:
        known = {name: error for name, error in errors.items() if error is not None}
        if not known or known.keys() != errors.keys():
            return {}
        total = (sum(self._weights[name] * error[side] for name, error in known.items()) for side in (0, 1))
        return {"total": fraction_explained(*total)} | {n: fraction_explained(*error) for n, error in known.items()}
