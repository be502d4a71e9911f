"""One step of distillation: captured features and the teacher's embeddings -> a scalar to add to the loss of D."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kd_plugin.balance import Balance
from kd_plugin.config.kd import KDConfig
from kd_plugin.diagnostics import Transfer
from kd_plugin.distributed import gathered
from kd_plugin.errors import CaptureError, KDError, TeacherError
from kd_plugin.finite_check import FiniteCheck
from kd_plugin.functional import energy_distance
from kd_plugin.normalization import Space
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.schedule import Schedule
from kd_plugin.student.heads import pooled
from kd_plugin.student.tap import FeatureTap
from kd_plugin.teachers.base import Teacher
from kd_plugin.teachers.cache import EmbeddingCache
from kd_plugin.teachers.image_input import as_in_the_release, rgb
from kd_plugin.terms import DIVERSITY, LOSSES, MATCH, DistillLoss, Diversity
from kd_plugin.types import ROLES, Captured, DistillBatch, Distilled, Pairs, Role

__all__ = ["Distiller", "Look"]

_FOR_D = "--kd-balance: call kd(adversarial=loss) with the loss of D that distillation is added to, or set it to 0"
_FOR_MATCH = (
    "--kd-match-pull: call kd.for_generator(fake, real, loss) with the loss of G that it is added to, or set it to 0"
)
_PATIENCE = 100  # steps of D, without one of G that asks for its terms

Look = Callable[[Tensor], object]  # calls D on images


@dataclass(frozen=True)
class _Borrowed:
    """What the distiller uses but does not own. Inside a dataclass, nn.Module does not register any of it."""

    tap: FeatureTap
    teacher: Teacher
    prompts: PromptBank | None


class Distiller(nn.Module):
    """Owns the head and the losses; borrows the tap on D, and the teacher. Made by `kd_plugin.attach`.

    Its parameters are the head's and belong into D's optimiser. Its state_dict is the head, the running statistics of
    the teacher's embeddings, and where the schedule stands, never D or the teacher: a resumed run goes on as it would
    have.

    Args:
        tap: on the student feature.
        teacher: frozen.
        head: [N, F] or [N, F, h, w] -> [N, E].
        prompts: None where no term needs texts.
        config: all but the weights, the head and the prompts is read.
        weights: of the terms by name; a term of weight 0 is never computed.
        seed: of the coin; must be the same on all ranks.
    """

    def __init__(
        self,
        tap: FeatureTap,
        teacher: Teacher,
        head: nn.Module,
        prompts: PromptBank | None,
        config: KDConfig,
        weights: Mapping[str, float],
        seed: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.head = head
        distances = config.distances
        self.losses = nn.ModuleDict({name: LOSSES[name](distances[name]) for name in self.weights if name in LOSSES})
        self.diversity = Diversity()
        self.space = Space(config.norm, config.centre, teacher.embed_dim, tap.device)
        self._diversity_on = config.diversity_on if DIVERSITY in self.weights else "off"
        on_g = {DIVERSITY: self._diversity_on == "generator", MATCH: MATCH in self.weights}
        self._for_g = [name for name, on in on_g.items() if on]
        self._unasked = 0  # steps of D since G's terms were asked for
        self._borrowed = _Borrowed(tap, teacher, prompts)
        self._transfer = Transfer()
        self._balance = Balance(config.balance, _FOR_D) if config.balance > 0 else None
        pulled = MATCH in self._for_g and config.match_pull > 0
        self._balance_match = Balance(config.match_pull, _FOR_MATCH, "scale_match", lowers=False) if pulled else None
        self._schedule = Schedule(config.warmup, config.until, config.every, config.p, seed)
        self._cache = EmbeddingCache(teacher.embed_dim)
        self._finite = FiniteCheck()

    if TYPE_CHECKING:

        def __call__(self, adversarial: Tensor | None = None) -> Distilled: ...

    @property
    def teacher(self) -> Teacher:
        return self._borrowed.teacher

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The one; of a JointDistiller, all."""
        return (self.teacher,)

    @property
    def prompts(self) -> PromptBank | None:
        return self._borrowed.prompts

    @property
    def _acts(self) -> bool:
        """Whether D has a term, in this step."""
        return (bool(self.losses) or self._diversity_on == "student") and self._schedule.active

    def begin_step(self) -> None:
        """A step of D begins. To be called by hosts that call `kd()` several times a step (gradient accumulation);
        without, every `kd()` ends a step."""
        self._schedule.begin_step()

    def capture(
        self, role: Role, clean: Tensor | None = None, keys: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """A block in which D's calls are watched. Does nothing where no term of D is on, or in a step left out.

        Args:
            role: `real` or `fake`, whichever images D is called with inside.
            clean: [N, C, H, W] in [-1, 1], the same images before augmentation; needed for the view `clean`.
            keys: [N] whole numbers on the CPU, one for each different clean image (dataset index, and whether it is
                mirrored): with the view `clean` the teacher then looks at each image once in a run.

        Raises:
            CaptureError: no clean images for the view `clean`, or the block went wrong (see FeatureTap.capture).
        """
        self._schedule.enter()
        if not self._acts:
            return nullcontext()
        if self.config.view == "clean" and clean is None:
            raise CaptureError(
                f"--kd-view=clean: capture('{role}') needs the images before augmentation; write "
                f"capture('{role}', clean=images)"
            )
        return self._borrowed.tap.capture(role, clean, keys if self.config.view == "clean" else None)

    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        """D's terms of this step, each summed over real and fake; zero in a step left out. One coin is drawn a step.

        Args:
            adversarial: the loss of D so far, of the captured calls; needed where `balance` is on.

        Raises:
            KDError: `balance` is on, and no adversarial loss came.
            CaptureError: a role was not captured, or real and fake differ in number though crossed pairs are on.
            TeacherError: embeddings that are not finite or not [N, E].
        """
        self._schedule.enter()
        self._schedule.leave()
        self._remind()
        if not self._acts:
            return Distilled(torch.zeros((), device=self._borrowed.tap.device))
        captured = self._borrowed.tap.drain()
        self._check_pairs(captured)
        with torch.autocast(captured["real"].features.device.type, enabled=False):
            outputs = tuple(output for seen in captured.values() for output in seen.outputs)
            distilled = self._weighted(self._terms(captured), outputs)
        if self._balance is not None:
            distilled = self._balance(distilled, adversarial)
        factor = self._schedule.factor(len(captured["real"].features))
        return distilled if factor == 1 else dataclasses.replace(distilled, total=distilled.total * factor)

    def _remind(self) -> None:
        """A term of G that nobody asks for would be missed by nobody."""
        self._unasked += 1
        if self._for_g and self._unasked == _PATIENCE:
            flags = " and ".join(f"--kd-{name}" for name in self._for_g)
            warnings.warn(
                f"{_PATIENCE} steps of D, and {flags} did nothing: in G's step add "
                "kd.for_generator(fake, real, loss).total to its loss, or set the weight to 0",
                stacklevel=3,
            )

    def _terms(self, captured: Mapping[Role, Captured]) -> dict[str, Tensor]:
        """Each term, unweighted."""
        terms: dict[str, Tensor] = {}
        sizes = [len(captured[role].features) for role in ROLES]
        pairs, coin = self._pairs(captured, sizes), self._schedule.coin
        for name, loss in self.losses.items():
            compared = self._compared(loss, pairs)
            real, fake = torch.split(compared.student, sizes)
            teacher_real, teacher_fake = torch.split(compared.teacher, sizes)
            of_real = DistillBatch("real", real, teacher_real, teacher_fake, coin)
            of_fake = DistillBatch("fake", fake, teacher_fake, teacher_real, coin)
            terms[name] = loss(self._transfer.observe(name, of_real)) + loss(self._transfer.observe(name, of_fake))
        if self._diversity_on == "student":
            texts = self._texts(pairs.student)
            assert texts is not None  # attach() asks for prompts where this term is on
            _, fake = torch.split(self.space.beside_texts(pairs).student, sizes)
            terms[DIVERSITY] = self.diversity(fake, texts)
        return terms

    def _compared(self, loss: nn.Module, pairs: Pairs) -> Pairs:
        """What this loss compares, [N, K] of both."""
        assert isinstance(loss, DistillLoss)
        pairs = self.space.beside_texts(pairs) if loss.needs_texts else self.space.compared(pairs)
        texts = self._texts(pairs.student)
        return Pairs(loss.compared(pairs.student, texts), loss.compared(pairs.teacher, texts))

    def explained(self) -> dict[str, float]:
        """The share of the teacher that the student explains, over the latest steps; see `Transfer.explained`."""
        return self._transfer.explained(self.losses, self.weights)

    @torch.no_grad()
    def held_out(self, images: Tensor, batch: int) -> Callable[[Look], dict[str, float]]:
        """Makes a function that tells the share explained of images that D is not trained on: learnt, not remembered.

        Args:
            images: [N, C, H, W] in [-1, 1]. The teacher looks at them once, here.
            batch: how many it looks at at a time.

        Returns:
            `explained(look)`, which calls `look(images)` (of several teachers, once for each); it calls D, on all or
            some at a time. As `explained()`; empty where no term of D compares with the teacher.
        """
        embeddings = torch.cat([self._embed(part) for part in torch.split(images, batch)]) if self.losses else None
        return lambda look: self._explained_of(images, embeddings, look)

    @torch.no_grad()
    def _explained_of(self, images: Tensor, embeddings: Tensor | None, look: Look) -> dict[str, float]:
        if embeddings is None:
            look(images)
            return {}
        tap = self._borrowed.tap
        with tap.capture("real"):
            look(images)
        training = self.head.training
        student = self.head.eval()(tap.release().features)  # [N, E]; a spectral norm stands still in eval mode
        self.head.train(training)
        pairs = Pairs(student, embeddings.to(student))
        transfer = Transfer(len(images), roles=("real",))
        for name, loss in self.losses.items():
            rows = self._compared(loss, pairs)
            transfer.observe(name, DistillBatch("real", rows.student, rows.teacher, rows.teacher, coin=False))
        return transfer.explained(self.losses, self.weights)

    def for_generator(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        adversarial: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Distilled:
        """G's terms, with their gradient through the frozen teacher into `fake`; zero where none is on.

        In a run of several processes they are those of the joint batch.

        Args:
            fake: [N, C, H, W] in [-1, 1], attached to G's graph.
            real: [M, C, H, W] in [-1, 1], treated as `fake` is: both augmented or neither; needed by the matching term.
            adversarial: the loss of G on these images; needed by the matching term where `match_pull` is on.
            keys: [M], of real images that are not augmented; as in `capture`: the teacher looks at each once.

        Raises:
            KDError: the matching term needs real images, or the balance a loss, and none came.
            TeacherError: embeddings that are not finite or not [N, E].
        """
        self._unasked = 0
        distilled = Distilled(torch.zeros((), device=fake.device))
        if not self._for_g:
            return distilled
        outputs = (fake,) if fake.requires_grad else ()
        with torch.autocast(fake.device.type, enabled=False):
            embeddings = gathered(self._embed(fake))
            if DIVERSITY in self._for_g:
                texts = self._texts(embeddings)
                assert texts is not None  # attach() asks for prompts where this term is on
                distilled += self._weighted({DIVERSITY: self.diversity(embeddings, texts)}, outputs)
            if MATCH in self._for_g:
                if real is None:
                    raise KDError(
                        "--kd-match: call kd.for_generator(fake, real, loss) with real images, or set --kd-match=0"
                    )
                with torch.no_grad():
                    of_reals = gathered(self._embed_kept(real, keys).to(embeddings))
                matched = self._weighted({MATCH: energy_distance(embeddings, of_reals)}, outputs)
                distilled += matched if self._balance_match is None else self._balance_match(matched, adversarial)
        return distilled

    def get_extra_state(self) -> dict[str, Any]:
        """Where the schedule and the balance stand (loadable with weights_only=True)."""
        balances = [None if one is None else one.state_dict() for one in (self._balance, self._balance_match)]
        return {**self._schedule.state_dict(), "balances": balances}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._schedule.load_state_dict(state)
        for one, kept in zip((self._balance, self._balance_match), state["balances"], strict=True):
            if one is not None and kept is not None:
                one.load_state_dict(kept)

    def _weighted(self, terms: dict[str, Tensor], outputs: tuple[Tensor, ...]) -> Distilled:
        first, *others = (self.weights[name] * value for name, value in terms.items())
        total = sum(others, first)
        return Distilled(total, {name: value.detach().float() for name, value in terms.items()}, outputs)

    def _check_pairs(self, captured: Mapping[Role, Captured]) -> None:
        """Crossed pairs go row by row. Checked on every step, not only where the coin falls so: errors come early."""
        real, fake = (len(captured[role].features) for role in ROLES)
        crossed = self.config.p > 0 and any(getattr(loss, "needs_other", False) for loss in self.losses.values())
        if crossed and real != fake:
            raise CaptureError(
                f"{real} real and {fake} fake images were captured, but crossed pairs need equally many; "
                "give D equal batches, or --kd-p=0"
            )

    def _pairs(self, captured: Mapping[Role, Captured], sizes: list[int]) -> Pairs:
        """Of the real images, and then the fakes: [N + M, E]. Everything row by row is done once for both."""
        student = self.head(torch.cat([pooled(captured[role].features) for role in ROLES]))
        with torch.no_grad():
            teacher = self._embed_both(captured["real"], captured["fake"]).to(student)
            self.space.observe(teacher)
            if self.config.control == "shuffle":  # batches are random, so a neighbour is a random other image
                teacher = torch.cat([part.roll(1, dims=0) for part in torch.split(teacher, sizes)])
        return Pairs(student, teacher)

    def _texts(self, like: Tensor) -> Tensor | None:
        """[P, E] of the type and device of `like`."""
        prompts = self._borrowed.prompts
        return None if prompts is None else prompts.embeddings(like.device).to(like)

    def _shown(self, captured: Captured) -> Tensor:
        """The images that the teacher is to see."""
        if self.config.view == "clean":
            assert captured.clean is not None  # capture() asks for them
            return captured.clean
        if captured.seen is None:
            raise CaptureError("--kd-view=seen: D was given no image tensor [N, C, H, W]; use --kd-view=clean")
        return captured.seen

    def _embed_both(self, real: Captured, fake: Captured) -> Tensor:
        """The teacher's, [N + M, E]: in one call where the sizes agree; those of reals with keys from the cache.

        Whatever the cache holds, the teacher is called with whole batches: the last bits of a row depend on how many
        there are, and a resumed run, whose cache is empty, must go on as it would have.
        """
        real_images, fake_images = self._shown(real), self._shown(fake)
        if real.keys is not None:
            fakes = self._embed(fake_images)
            return torch.cat([self._embed_kept(real_images, real.keys).to(fakes), fakes])
        if real_images.shape[1:] != fake_images.shape[1:]:
            return torch.cat([self._embed(real_images), self._embed(fake_images)])
        return self._embed(torch.cat([real_images, fake_images]))

    def _embed_kept(self, images: Tensor, keys: Tensor | None) -> Tensor:
        """As `_embed`; of images with keys from the cache."""
        if keys is None:
            return self._embed(images)
        if new := self._cache.missing(keys):
            self._cache.put(keys[new], self._embed(images)[new])
        rows = self._cache.get(keys)
        # From pinned memory a copy to a GPU does not wait for what the GPU has to do before.
        return rows.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else rows.to(images.device)

    def _embed(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [-1, 1] -> [N, E], checked. Differentiable."""
        teacher = self._borrowed.teacher
        shown = rgb(images)
        if self.config.preprocess == "release":
            shown = as_in_the_release(shown, teacher)
        embeddings = teacher.embed_images(shown)
        expected = (len(images), teacher.embed_dim)
        if tuple(embeddings.shape) != expected:
            raise TeacherError(
                f"teacher '{teacher.name}' gave image embeddings of the shape {list(embeddings.shape)}; expected "
                f"{list(expected)}"
            )
        if not self._finite(embeddings):
            culprit = f"from the teacher '{teacher.name}'" if images.isfinite().all() else "in the images it saw"
            raise TeacherError(f"NaN or infinity {culprit}: its embeddings cannot be distilled")
        return embeddings
