"""One step of distillation: captured features and the teacher's embeddings -> a scalar to add to the loss."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import Balance
from kd_plugin.config.kd import KDConfig
from kd_plugin.errors import CaptureError, TeacherError, arg
from kd_plugin.interface import AnyDistiller, RunD
from kd_plugin.normalization import Normalization
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.schedule import Schedule
from kd_plugin.seeding import seeded
from kd_plugin.sides.carried import Cargo, Load
from kd_plugin.sides.discriminator import Borrowed, DiscriminatorSide
from kd_plugin.sides.generator import GeneratorSide
from kd_plugin.student.features import plain
from kd_plugin.student.rows import Roles, Rows
from kd_plugin.teachers.embedder import Embedder
from kd_plugin.teachers.protocol import Teacher
from kd_plugin.terms import TERMS, Needs, Term, TermInfo
from kd_plugin.terms.stage_choice import EMBEDDING, StageTerm
from kd_plugin.types import ROLES, Captured, Distilled, Role, StageView

__all__ = ["Distiller"]

_PATIENCE = 100  # steps of D without a call of for_generator


class Distiller(AnyDistiller):
    """Runs the active terms. Owns the head, the terms and their schedule; borrows the tap on D, and the teacher.

    Its state_dict holds the head, the terms, the running statistics of the teacher's embeddings and the progress of
    schedule and balance, never D or the teacher.

    Args:
        borrowed: tap on D, teacher and prompts.
        head: [N, F] -> [N, E].
        config: everything else; a term of weight 0 is never computed.
        seed: of the coin, the terms' initial weights and their augmentation; must be the same in all processes.
        carried: the host's backward pass carries the gradients of D's terms, instead of adding their loss to its own.
        share: of this teacher among several; multiplies the gradients that are carried.
    """

    def __init__(
        self,
        borrowed: Borrowed,
        head: nn.Module,
        config: KDConfig,
        seed: int,
        carried: bool = False,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.head = head
        self._borrowed = borrowed
        embed_dim, device = borrowed.embedder.teacher.embed_dim, borrowed.tap.device
        with seeded(seed):  # terms may have parameters
            self.terms = nn.ModuleDict(
                {name: TERMS[name](options, embed_dim) for name, options in config.active_terms.items()}
            )
            views = _chosen_views(self._terms(), borrowed.embedder, device)
        self.terms.to(device)
        self.normalization = Normalization(config.norm, config.centre, embed_dim, device)
        on_d, on_g = ({name: term for name, term in self._terms() if side in term.sides} for side in ("D", "G"))
        self._on_d = DiscriminatorSide(borrowed, head, self.normalization, on_d, config)
        self._on_g = GeneratorSide(borrowed, on_g, views, config, seed)
        self._balances = _balances(config, on_g)
        self._schedule = Schedule(config.warmup, config.until, config.every, config.p, seed)
        self._unasked = 0  # steps of D since the terms of G were last asked for
        self._carried, self._share = carried, share
        self._carried_roles: set[Role] = set()  # of the step
        self._latest: dict[str, Tensor] = {}
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
        return self._on_g.needs

    @property
    def latest(self) -> dict[str, Tensor]:
        return dict(self._latest)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that D's optimiser trains: all except those of terms with their own optimiser."""
        apart = self._on_g.trained_apart()
        return ((n, p) for n, p in super().named_parameters(*args, **kwargs) if id(p) not in apart)

    def begin_step(self) -> None:
        self._end_step()
        self._schedule.begin_step()

    def capture(
        self, roles: Roles, clean: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> AbstractContextManager[None]:
        rows = Rows.of(roles)
        if not self._carried_roles.isdisjoint(rows.roles):  # a second time: the step before is over
            self._end_step()
        self._schedule.enter()
        without_gradients = self._carried and not torch.is_grad_enabled()
        if not (self._on_d.terms and self._schedule.active) or without_gradients:
            return self._skipped(rows)
        self._borrowed.embedder.check_capture(rows.roles, clean)
        keys = None if clean is None or self.view == "seen" else keys
        if not self._carried:
            return self._borrowed.tap.capture(rows, clean, keys)
        return self._capture_to_carry(rows, clean, keys, loss_scale)

    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        self._schedule.enter()
        self._end_step()
        tap = self._borrowed.tap
        if self._carried:
            values = {name: self._latest[name] for name in self._on_d.terms if name in self._latest}
            return Distilled(_nothing(tap.device), values)
        self._warn_if_generator_is_forgotten()
        if not (self._on_d.terms and self._schedule.active):
            return Distilled(_nothing(tap.device))
        captured = tap.drain()
        _check_gradients(captured)
        with torch.autocast(tap.device.type, enabled=False):
            distilled = self._on_d.distilled(captured, self._schedule.coin)
        if "D" in self._balances:
            distilled = self._balances["D"](distilled, adversarial)
        self._latest |= distilled.terms
        self._schedule.count(len(captured["real"].features))
        factor = self._schedule.factor
        return distilled if factor == 1 else dataclasses.replace(distilled, total=distilled.total * factor)

    def for_generator(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        adversarial: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Distilled:
        distilled = Distilled(_nothing(fake.device))
        for name, part in self._for_generator(fake, real, keys).items():
            distilled += self._balances[name](part, adversarial) if name in self._balances else part
        self._latest |= distilled.terms
        return distilled

    def guided(
        self, fake: Tensor, real: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> Tensor:
        if not (self._on_g.terms and torch.is_grad_enabled() and fake.requires_grad):
            return fake
        cargo = Cargo(loss_scale=loss_scale)
        leaf, guided = cargo.take(fake)
        plain, loads = Distilled(_nothing(fake.device)), []
        for name, part in self._for_generator(leaf, real, keys).items():
            self._latest |= part.terms
            if name in self._balances:
                gradient = torch.autograd.grad(part.total, leaf, retain_graph=True, allow_unused=True)
                loads.append(Load(gradient, factor=self._share, balance=self._balances[name]))
            else:
                plain += part
        cargo.load([*loads, Load(torch.autograd.grad(plain.total, leaf, allow_unused=True), factor=self._share)])
        return guided

    def explained(self) -> dict[str, float]:
        return self._on_d.explained()

    def held_out(self, images: Tensor, batch: int) -> Callable[[RunD], dict[str, float]]:
        return self._on_d.held_out(images, batch)

    def get_extra_state(self) -> dict[str, Any]:
        """The progress of schedule, balances and optimisers (loadable with weights_only=True)."""
        return {
            **self._schedule.state_dict(),
            "balances": {name: balance.state_dict() for name, balance in self._balances.items()},
            "optimizers": self._on_g.state_dict(),
            "generator_calls": self._on_g.calls,
            "carried": self._on_d.state_dict(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._schedule.load_state_dict(state)
        balances = state["balances"]
        if isinstance(balances, list):  # version 0.1: those of D and of the matching term
            balances = {name: kept for name, kept in zip(("D", "match"), balances, strict=True) if kept is not None}
        for name, balance in self._balances.items():
            if name in balances:
                balance.load_state_dict(balances[name])
        self._on_g.load_state_dict(state.get("optimizers", {}))
        self._on_g.calls = state.get("generator_calls", 0)
        self._on_d.load_state_dict(state.get("carried", {}))

    def _terms(self) -> Iterator[tuple[str, Term]]:
        for name, term in self.terms.items():
            assert isinstance(term, Term)
            yield name, term

    def _for_generator(self, fake: Tensor, real: Tensor | None, keys: Tensor | None) -> dict[str, Distilled]:
        self._unasked = 0
        if not self._on_g.terms:
            return {}
        with torch.autocast(fake.device.type, enabled=False):
            return self._on_g.distilled(plain(fake), None if real is None else plain(real), keys)

    @contextmanager
    def _skipped(self, rows: Rows) -> Iterator[None]:
        """A block in a step that distils nothing."""
        yield
        if self._carried:
            self._end_roles(rows)

    @contextmanager
    def _capture_to_carry(
        self, rows: Rows, clean: Tensor | None, keys: Tensor | None, loss_scale: float
    ) -> Iterator[None]:
        """Like the tap's, and then the gradients of D's terms are computed, for the backward pass to come."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        cargo = Cargo(parameters, loss_scale, rows.roles, ROLES)
        tap = self._borrowed.tap
        with tap.capture(rows, clean, keys, cargo.take):
            yield
        captured = tap.release(rows.roles)
        _check_gradients(captured)
        with torch.autocast(tap.device.type, enabled=False):
            part = self._on_d.distilled_of(captured, self._schedule.coin, fresh=bool(self._carried_roles))
        if "real" in captured:
            self._schedule.count(len(captured["real"].features))
        loads = []
        if part is not None:
            gradients = torch.autograd.grad(part.total, [*part.outputs, *parameters], allow_unused=True)
            outputs, factor = len(part.outputs), self._schedule.factor * self._share
            loads.append(Load(gradients[:outputs], gradients[outputs:], factor, self._balances.get("D")))
            self._latest |= part.terms
        cargo.load(loads)
        self._end_roles(rows)

    def _end_roles(self, rows: Rows) -> None:
        self._carried_roles.update(rows.roles)
        if len(self._carried_roles) == len(ROLES):
            self._warn_if_generator_is_forgotten()

    def _end_step(self) -> None:
        self._schedule.leave()
        self._carried_roles.clear()
        if "D" in self._balances:
            self._balances["D"].begin_step()

    def _warn_if_generator_is_forgotten(self) -> None:
        """Warn if the host never requests the terms of G; nothing else would show it."""
        self._unasked += 1
        if self._on_g.terms and self._unasked == _PATIENCE:
            named = " and ".join(arg(name, self.config.weights[name]) for name in self._on_g.terms)
            warnings.warn(
                f"after {_PATIENCE} steps of D, {named} had no effect: in G's step add "
                "kd.for_generator(fake, real, loss).total to its loss, or let its images pass through "
                "kd.guided(fake, real), or set the weight to 0",
                stacklevel=3,
            )


def _nothing(device: torch.device) -> Tensor:
    """A loss of 0 that can be backpropagated."""
    return torch.zeros((), device=device, requires_grad=True)


def _check_gradients(captured: Mapping[Role, Captured]) -> None:
    """
    Raises:
        CaptureError: D can learn nothing from what was captured.
    """
    if not torch.is_grad_enabled():  # the values are only looked at
        return
    for role, seen in captured.items():
        if why := seen.blocked():
            raise CaptureError(f"the captured layer passes no gradient on to D ('{role}'): {why}")


def _chosen_views(terms: Iterable[tuple[str, Term]], embedder: Embedder, device: torch.device) -> tuple[StageView, ...]:
    """What the terms that need stages read of them, each view once.

    Raises:
        TeacherError: the teacher has no stages.
    """
    readers = [term for _, term in terms if term.needs.stages]
    if not readers:
        return ()
    shapes = embedder.stage_shapes(device)
    refused = None if shapes else next((term for term in readers if not term.stages_if_any), None)
    if refused is not None:
        raise TeacherError(
            f"{arg(refused.name, refused.options.weight)} needs intermediate features, but teacher "
            f"'{embedder.teacher.name}' has no stages; use another teacher, {_other_ways(refused)}or set "
            f"{arg(refused.name, 0)}"
        )
    return tuple(dict.fromkeys(view for term in readers for view in term.choose_stages(shapes)))


def _other_ways(term: Term) -> str:
    return f"set {arg(f'{term.name}_on', EMBEDDING)}, " if isinstance(term, StageTerm) else ""


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
