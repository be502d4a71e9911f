"""One step of distillation: captured features and the teacher's embeddings -> a scalar to add to the loss of D."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kd_plugin.balance import Balance
from kd_plugin.config import KDConfig
from kd_plugin.errors import CaptureError, TeacherError
from kd_plugin.losses import LOSSES, Diversity
from kd_plugin.measuring import Transfer
from kd_plugin.prompts import PromptBank
from kd_plugin.records import ROLES, Captured, DistillBatch, Distilled, Role
from kd_plugin.tap import FeatureTap
from kd_plugin.teachers.base import Teacher
from kd_plugin.views import rgb

__all__ = ["DIVERSITY", "Distiller"]

DIVERSITY = "diversity"  # the one term of the generator's loss


@dataclass(frozen=True)
class _Borrowed:
    """What the distiller uses but does not own. Inside a dataclass, nn.Module does not register any of it."""

    tap: FeatureTap
    teacher: Teacher
    prompts: PromptBank | None


class Distiller(nn.Module):
    """Owns the head and the losses; borrows the tap on D, and the teacher. Made by `kd_plugin.attach`.

    Its parameters are the head's and belong into D's optimiser. Its state_dict is the head and the state of the coin,
    never D or the teacher: with it a resumed run draws the same coins.

    Args:
        tap: on the student feature.
        teacher: frozen.
        head: [N, F] or [N, F, h, w] -> [N, E].
        prompts: None where no term needs texts.
        config: `p`, `view`, the distances, `balance` and `control` are read.
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
        self.losses = nn.ModuleDict({name: LOSSES[name](distances[name]) for name in self.weights if name != DIVERSITY})
        self.diversity = Diversity()
        self._borrowed = _Borrowed(tap, teacher, prompts)
        self._transfer = Transfer()
        self._balance = Balance(config.balance) if config.balance > 0 else None
        self._coin = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on every device

    if TYPE_CHECKING:

        def __call__(self, adversarial: Tensor | None = None) -> Distilled: ...

    @property
    def teacher(self) -> Teacher:
        return self._borrowed.teacher

    @property
    def prompts(self) -> PromptBank | None:
        return self._borrowed.prompts

    def capture(self, role: Role, clean: Tensor | None = None) -> AbstractContextManager[None]:
        """A block in which D's calls are watched. Does nothing where no term of D is on.

        Args:
            role: `real` or `fake`, whichever images D is called with inside.
            clean: [N, C, H, W] in [-1, 1], the same images before augmentation; needed for the view `clean`.

        Raises:
            CaptureError: no clean images for the view `clean`, or the block went wrong (see FeatureTap.capture).
        """
        if not self.losses:
            return nullcontext()
        if self.config.view == "clean" and clean is None:
            raise CaptureError(
                f"--kd-view=clean: capture('{role}') needs the images before augmentation; write "
                f"capture('{role}', clean=images)"
            )
        return self._borrowed.tap.capture(role, clean)

    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        """D's terms of this step, each summed over real and fake; one coin is drawn a call.

        Args:
            adversarial: the loss of D so far, of the captured calls; needed where `balance` is on.

        Raises:
            KDError: `balance` is on, and no adversarial loss came.
            CaptureError: a role was not captured, or real and fake differ in number though crossed pairs are on.
            TeacherError: embeddings that are not finite or not [N, E].
        """
        if not self.losses:
            return Distilled(torch.zeros((), device=self._borrowed.tap.device))
        captured = self._borrowed.tap.drain()
        self._check_pairs(captured)
        coin = bool(torch.rand((), generator=self._coin) < self.config.p)  # rand < 1: p = 1 is always, p = 0 never
        terms: dict[str, Tensor] = {}
        with torch.autocast(captured["real"].features.device.type, enabled=False):
            for batch in self._batches(captured, coin):
                self._transfer.observe(batch)
                for name, loss in self.losses.items():
                    value = loss(batch)
                    terms[name] = terms[name] + value if name in terms else value
            distilled = self._weighted(terms)
        distilled = dataclasses.replace(
            distilled, outputs=tuple(output for seen in captured.values() for output in seen.outputs)
        )
        return distilled if self._balance is None else self._balance(distilled, adversarial)

    def explained(self) -> dict[str, float]:
        """The share of the teacher that the student explains, over the latest steps; see `Transfer.explained`."""
        return self._transfer.explained(self.losses, self.weights)

    def for_generator(self, fake: Tensor) -> Distilled:
        """The diversity term, with its gradient through the frozen teacher into `fake`; zero where it is off.

        Args:
            fake: [N, C, H, W] in [-1, 1], attached to G's graph.

        Raises:
            TeacherError: embeddings that are not finite or not [N, E].
        """
        if DIVERSITY not in self.weights:
            return Distilled(torch.zeros((), device=fake.device))
        with torch.autocast(fake.device.type, enabled=False):
            embeddings = self._embed(fake)
            texts = self._texts(embeddings)
            assert texts is not None  # attach() asks for prompts where this term is on
            return self._weighted({DIVERSITY: self.diversity(embeddings, texts)})

    def get_extra_state(self) -> dict[str, Any]:
        """The coin's state, a CPU byte tensor, and the balance's (loadable with weights_only=True)."""
        return {"coin": self._coin.get_state(), "ratio": None if self._balance is None else self._balance.ratio}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._coin.set_state(state["coin"].cpu())  # torch.load(map_location="cuda") moves it
        if self._balance is not None:
            self._balance.ratio = state["ratio"]

    def _weighted(self, terms: dict[str, Tensor]) -> Distilled:
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return Distilled(total, {name: value.detach().float() for name, value in terms.items()})

    def _check_pairs(self, captured: Mapping[Role, Captured]) -> None:
        """Crossed pairs go row by row. Checked on every step, not only where the coin falls so: errors come early."""
        real, fake = (len(captured[role].features) for role in ROLES)
        crossed = self.config.p > 0 and any(getattr(loss, "needs_other", False) for loss in self.losses.values())
        if crossed and real != fake:
            raise CaptureError(
                f"{real} real and {fake} fake images were captured, but crossed pairs need equally many; "
                "give D equal batches, or --kd-p=0"
            )

    def _batches(self, captured: Mapping[Role, Captured], coin: bool) -> tuple[DistillBatch, DistillBatch]:
        with parametrize.cached():  # a head's norm or orthogonality is worked out once for both
            real, fake = (self.head(captured[role].features) for role in ROLES)  # [N, E], [M, E]
        with torch.no_grad():
            teacher_real, teacher_fake = self._embed_both(*(self._shown(captured[role]) for role in ROLES))
        teacher_real, teacher_fake = teacher_real.to(real), teacher_fake.to(fake)
        if self.config.control == "shuffle":  # batches are random, so a neighbour is a random other image
            teacher_real, teacher_fake = teacher_real.roll(1, dims=0), teacher_fake.roll(1, dims=0)
        texts = self._texts(real)
        return (
            DistillBatch("real", real, teacher_real, teacher_fake, texts, coin),
            DistillBatch("fake", fake, teacher_fake, teacher_real, texts, coin),
        )

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

    def _embed_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """One call of the teacher for both where the sizes agree."""
        if real.shape[1:] != fake.shape[1:]:
            return self._embed(real), self._embed(fake)
        both = self._embed(torch.cat([real, fake]))
        return both[: len(real)], both[len(real) :]

    def _embed(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [-1, 1] -> [N, E], checked. Differentiable."""
        teacher = self._borrowed.teacher
        embeddings = teacher.embed_images(rgb(images))
        expected = (len(images), teacher.embed_dim)
        if tuple(embeddings.shape) != expected:
            raise TeacherError(
                f"teacher '{teacher.name}' gave image embeddings of the shape {list(embeddings.shape)}; expected "
                f"{list(expected)}"
            )
        if not torch.isfinite(embeddings).all():
            culprit = f"from the teacher '{teacher.name}'" if torch.isfinite(images).all() else "in the images it saw"
            raise TeacherError(f"NaN or infinity {culprit}: its embeddings cannot be distilled")
        return embeddings
