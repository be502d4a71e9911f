"""One step of distillation: captured features and the teacher's embeddings -> a scalar to add to the loss."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import Balance, weighted
from kd_plugin.config.kd import KDConfig
from kd_plugin.diagnostics import Errors, fraction_explained
from kd_plugin.distributed import gathered
from kd_plugin.errors import CaptureError, KDError, TeacherError, arg
from kd_plugin.interface import AnyDistiller, RunD
from kd_plugin.normalization import Normalization
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.schedule import Schedule
from kd_plugin.seeding import seeded
from kd_plugin.student.heads import pooled
from kd_plugin.student.tap import FeatureTap
from kd_plugin.teachers.embedder import Embedder
from kd_plugin.teachers.protocol import Teacher
from kd_plugin.terms import TERMS, ComparisonTerm, DiscriminatorStep, GeneratorStep, Needs, Term, TermInfo
from kd_plugin.terms.stage_choice import EMBEDDING, StageTerm
from kd_plugin.terms.training import train_term
from kd_plugin.types import ROLES, Captured, Distilled, Pairs, Role, StageView

__all__ = ["Distiller"]

_PATIENCE = 100  # steps of D without a call of for_generator


@dataclass(frozen=True)
class _Borrowed:
    """What the distiller uses but does not own. Inside a dataclass, nn.Module does not register any of it."""

    tap: FeatureTap
    embedder: Embedder
    prompts: PromptBank | None


class Distiller(AnyDistiller):
    """Runs the active terms. Owns the head, the terms and their schedule; borrows the tap on D, and the teacher.

    Its state_dict holds the head, the terms, the running statistics of the teacher's embeddings and the progress of
    schedule and balance, never D or the teacher.

    Args:
        tap: on the student feature.
        teacher: frozen.
        head: [N, F] or [N, F, h, w] -> [N, E].
        prompts: None if no active term needs texts.
        config: everything else; a term of weight 0 is never computed.
        seed: of the coin and of the terms' initial weights; must be the same in all processes.
    """

    def __init__(
        self,
        tap: FeatureTap,
        teacher: Teacher,
        head: nn.Module,
        prompts: PromptBank | None,
        config: KDConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.head = head
        self._borrowed = _Borrowed(tap, Embedder(teacher, config.view, config.preprocess), prompts)
        with seeded(seed):  # terms may have parameters
            self.terms = nn.ModuleDict(
                {name: TERMS[name](options, teacher.embed_dim) for name, options in config.active_terms.items()}
            )
            self._views = _chosen_views(self._terms(), self._borrowed.embedder, tap.device)
        self.terms.to(tap.device)
        self.normalization = Normalization(config.norm, config.centre, teacher.embed_dim, tap.device)
        self._on_d, self._on_g = (
            {name: term for name, term in self._terms() if side in term.sides} for side in ("D", "G")
        )
        self._weights = config.weights
        self._generator_needs = Needs.union(term.needs for term in self._on_g.values())
        self._optimizers = _optimizers(self._on_g)
        self._balances = _balances(config, self._on_g)
        self._schedule = Schedule(config.warmup, config.until, config.every, config.p, seed)
        self._unasked = 0  # steps of D since the last call of for_generator
        self.register_load_state_dict_pre_hook(_renamed_since_0_1)  # type: ignore[no-untyped-call]

    @property
    def teacher(self) -> Teacher:
        return self._borrowed.embedder.teacher

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        return (self.teacher,)

    @property
    def prompts(self) -> PromptBank | None:
        return self._borrowed.prompts

    @property
    def terms_info(self) -> tuple[TermInfo, ...]:
        return tuple(TermInfo.of(term) for _, term in self._terms())

    @property
    def view(self) -> str:
        return self._borrowed.embedder.view

    @property
    def generator_needs(self) -> Needs:
        return self._generator_needs

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that D's optimiser trains: all except those of terms with their own optimiser."""
        trained_apart = {id(p) for name in self._optimizers for p in self._on_g[name].parameters()}
        return ((n, p) for n, p in super().named_parameters(*args, **kwargs) if id(p) not in trained_apart)

    def begin_step(self) -> None:
        self._schedule.begin_step()

    def capture(
        self, role: Role, clean: Tensor | None = None, keys: Tensor | None = None
    ) -> AbstractContextManager[None]:
        self._schedule.enter()
        if not (self._on_d and self._schedule.active):
            return nullcontext()
        self._borrowed.embedder.check_capture(role, clean)
        return self._borrowed.tap.capture(role, clean, keys if self.view == "clean" else None)

    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        self._schedule.enter()
        self._schedule.leave()
        self._warn_if_generator_is_forgotten()
        if not (self._on_d and self._schedule.active):
            return Distilled(torch.zeros((), device=self._borrowed.tap.device))
        captured = self._borrowed.tap.drain()
        self._check_numbers(captured)
        with torch.autocast(captured["real"].features.device.type, enabled=False):
            outputs = tuple(output for seen in captured.values() for output in seen.outputs)
            step = self._discriminator_step(captured)
            losses = {name: term.discriminator_loss(step) for name, term in self._on_d.items()}
            distilled = weighted(losses, self._weights, outputs)
        if "D" in self._balances:
            distilled = self._balances["D"](distilled, adversarial)
        factor = self._schedule.factor(step.real)
        return distilled if factor == 1 else dataclasses.replace(distilled, total=distilled.total * factor)

    def for_generator(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        adversarial: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Distilled:
        self._unasked = 0
        distilled = Distilled(torch.zeros((), device=fake.device))
        if not self._on_g:
            return distilled
        outputs = (fake,) if fake.requires_grad else ()
        with torch.autocast(fake.device.type, enabled=False):
            step = self._generator_step(fake, real, keys)
            for name, optimizer in self._optimizers.items():
                train_term(self._on_g[name], optimizer, step)
            for name, term in self._on_g.items():
                part = weighted({name: term.generator_loss(step)}, self._weights, outputs)
                distilled += self._balances[name](part, adversarial) if name in self._balances else part
        return distilled

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
        with tap.capture("real"):
            run(images)
        training = self.head.training
        student = self.head.eval()(tap.release().features)  # [N, E]; in eval mode a spectral norm is not updated
        self.head.train(training)
        pairs = Pairs(student, embeddings.to(student))
        step = DiscriminatorStep(pairs, len(pairs), self._texts(student), False, self.normalization)
        return self._explained({name: term.errors(step) for name, term in self._comparisons()})

    def get_extra_state(self) -> dict[str, Any]:
        """The progress of schedule, balances and optimisers (loadable with weights_only=True)."""
        return {
            **self._schedule.state_dict(),
            "balances": {name: balance.state_dict() for name, balance in self._balances.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._schedule.load_state_dict(state)
        balances = state["balances"]
        if isinstance(balances, list):  # version 0.1: those of D and of the matching term
            balances = {name: kept for name, kept in zip(("D", "match"), balances, strict=True) if kept is not None}
        for name, balance in self._balances.items():
            if name in balances:
                balance.load_state_dict(balances[name])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # it would share the tensors otherwise

    def _terms(self) -> Iterator[tuple[str, Term]]:
        for name, term in self.terms.items():
            assert isinstance(term, Term)
            yield name, term

    def _comparisons(self) -> Iterator[tuple[str, ComparisonTerm]]:
        return ((name, term) for name, term in self._on_d.items() if isinstance(term, ComparisonTerm))

    def _warn_if_generator_is_forgotten(self) -> None:
        """Warn if the host never requests the terms of G; nothing else would show it."""
        self._unasked += 1
        if self._on_g and self._unasked == _PATIENCE:
            named = " and ".join(arg(name, self._weights[name]) for name in self._on_g)
            warnings.warn(
                f"after {_PATIENCE} steps of D, {named} had no effect: in G's step add "
                "kd.for_generator(fake, real, loss).total to its loss, or set the weight to 0",
                stacklevel=3,
            )

    def _check_numbers(self, captured: Mapping[Role, Captured]) -> None:
        """Crossed pairs need equal batches. Checked also in steps that do not cross, so errors come early."""
        real, fake = (len(captured[role].features) for role in ROLES)
        if real != fake and self.config.p > 0 and any(term.needs.other_batch for term in self._on_d.values()):
            raise CaptureError(
                f"{real} real and {fake} fake images were captured, but crossed pairs need equal numbers; "
                f"give D equal batches, or set {arg('p', 0)}"
            )

    def _discriminator_step(self, captured: Mapping[Role, Captured]) -> DiscriminatorStep:
        """Rows are computed once for both roles, real then fake."""
        real = len(captured["real"].features)
        student = self.head(torch.cat([pooled(captured[role].features) for role in ROLES]))
        with torch.no_grad():
            teacher = self._borrowed.embedder.embed_captured(captured["real"], captured["fake"]).to(student)
            self.normalization.observe(teacher)
            if self.config.control == "shuffle":  # batches are random, so a neighbour is a random other image
                teacher = torch.cat([teacher[:real].roll(1, dims=0), teacher[real:].roll(1, dims=0)])
        pairs = Pairs(student, teacher)
        return DiscriminatorStep(pairs, real, self._texts(student), self._schedule.coin, self.normalization)

    def _generator_step(self, fake: Tensor, real: Tensor | None, keys: Tensor | None) -> GeneratorStep:
        embed = self._borrowed.embedder.embed_with_stages
        embeddings, fake_stages = embed(fake, self._views)
        step = GeneratorStep(gathered(embeddings), texts=self._texts(embeddings), fake_stages=_gathered(fake_stages))
        if not self._generator_needs.real_images:
            return step
        if real is None:
            name = next(name for name, term in self._on_g.items() if term.needs.real_images)
            raise KDError(
                f"{arg(name, self._weights[name])}: call kd.for_generator(fake, real, loss) with real images, or set "
                f"{arg(name, 0)}"
            )
        with torch.no_grad():
            of_reals, real_stages = embed(real, self._views, keys)
        return dataclasses.replace(step, real=gathered(of_reals.to(embeddings)), real_stages=_gathered(real_stages))

    def _texts(self, like: Tensor) -> Tensor | None:
        """[P, E] of the type and device of `like`."""
        prompts = self.prompts
        return None if prompts is None else prompts.embeddings(like.device).to(like)

    def _explained(self, errors: Mapping[str, Errors | None]) -> dict[str, float]:
        known = {name: error for name, error in errors.items() if error is not None}
        if not known or known.keys() != errors.keys():
            return {}
        total = (sum(self._weights[name] * error[side] for name, error in known.items()) for side in (0, 1))
        return {"total": fraction_explained(*total)} | {n: fraction_explained(*error) for n, error in known.items()}


def _chosen_views(terms: Iterable[tuple[str, Term]], embedder: Embedder, device: torch.device) -> tuple[StageView, ...]:
    """What the terms that need stages read of them, each view once.

    Raises:
        TeacherError: the teacher has no stages.
    """
    readers = {name: term for name, term in terms if term.needs.stages}
    if not readers:
        return ()
    shapes = embedder.stage_shapes(device)
    if not shapes:
        name, term = next(iter(readers.items()))
        raise TeacherError(
            f"{arg(name, term.options.weight)} needs intermediate features, but teacher '{embedder.teacher.name}' has "
            f"no stages; use another teacher, {_other_ways(term)}or set {arg(name, 0)}"
        )
    return tuple(dict.fromkeys(view for term in readers.values() for view in term.choose_stages(shapes)))


def _other_ways(term: Term) -> str:
    return f"set {arg(f'{term.name}_on', EMBEDDING)}, " if isinstance(term, StageTerm) else ""


def _gathered(stages: Mapping[StageView, Tensor]) -> dict[StageView, Tensor]:
    return {view: gathered(stage) for view, stage in stages.items()}


def _optimizers(terms: Mapping[str, Term]) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of G's terms with parameters.

    Raises:
        KDError: such a term has none.
    """
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, term in terms.items():
        optimizer = term.make_optimizer()
        if optimizer is not None:
            optimizers[name] = optimizer
        elif "D" not in term.sides and any(True for _ in term.parameters()):
            raise KDError(f"term '{name}' acts on G and has parameters: its make_optimizer() must return an optimiser")
    return optimizers


def _balances(config: KDConfig, on_g: Mapping[str, Term]) -> dict[str, Balance]:
    """One for the terms of D together, and one for each term of G with a least gradient ratio."""
    balances: dict[str, Balance] = {}
    if config.balance > 0:
        advice = (
            f"{arg('balance')}: call kd(adversarial=loss) with the loss of D that distillation is added to, or set "
            f"{arg('balance', 0)}"
        )
        balances["D"] = Balance(config.balance, advice)
    for name, term in on_g.items():
        if (ratio := term.least_gradient_ratio) > 0:
            advice = (
                f"{arg(name, term.options.weight)} is scaled by the adversarial loss: call "
                "kd.for_generator(fake, real, loss) with the loss of G that it is added to"
            )
            balances[name] = Balance(ratio, advice, f"scale_{name}", lowers=False)
    return balances


def _renamed_since_0_1(_module: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    """`normalization` was called `space`."""
    for key in [key for key in state if key.startswith(f"{prefix}space.")]:
        state[f"{prefix}normalization.{key.removeprefix(f'{prefix}space.')}"] = state.pop(key)
