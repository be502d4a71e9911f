"""The interface between a host and a distiller of one or several teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kd_plugin.prompts.bank import PromptBank
from kd_plugin.student.rows import Roles
from kd_plugin.teachers.protocol import Teacher
from kd_plugin.terms import Needs, TermInfo
from kd_plugin.types import Distilled

__all__ = ["AnyDistiller", "RunD"]

RunD = Callable[[Tensor], object]  # calls D on images


class AnyDistiller(nn.Module, ABC):
    """Created by `kd_plugin.attach`. Its parameters belong in D's optimiser; its state_dict restores a run exactly.

    Images are [N, 3, H, W], or grey [N, 1, H, W], in the `image_range` of `attach`, by default [-1, 1].
    """

    if TYPE_CHECKING:

        def __call__(self, adversarial: Tensor | None = None) -> Distilled: ...

    @property
    @abstractmethod
    def teachers(self) -> tuple[Teacher, ...]:
        """All of them."""

    @property
    @abstractmethod
    def prompts(self) -> PromptBank | None:
        """The texts that images are compared with; None if no active term needs them."""

    @property
    @abstractmethod
    def terms_info(self) -> tuple[TermInfo, ...]:
        """The active terms."""

    @property
    @abstractmethod
    def view(self) -> str:
        """What the teacher sees: `seen` (the augmented images that D saw), `clean`, or `auto` (clean where given)."""

    @property
    @abstractmethod
    def generator_needs(self) -> Needs:
        """What the terms of G need, together."""

    @property
    @abstractmethod
    def latest(self) -> dict[str, Tensor]:
        """The latest values of all terms, by name, for logging: unweighted, detached scalars."""

    @abstractmethod
    def begin_step(self) -> None:
        """Start a step of D. For hosts that call `kd()` several times per step (gradient accumulation); without it,
        every `kd()` ends a step."""

    @abstractmethod
    def capture(
        self, roles: Roles, clean: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> AbstractContextManager[None]:
        """A block in which calls of D are observed. Does nothing if no term of D is active in this step.

        With `attach(carried=True)`, the gradients of D's terms are ready when the block ends, and the host's next
        backward pass through these calls adds them, to D and to the heads.

        Args:
            roles: `real` or `fake`: the images that D is called with inside. Where it is called with both at once:
                their order, `("fake", "real")` for `D(torch.cat([fake, real]))`; if they differ in number,
                `{"fake": len(fake), "real": len(real)}`.
            clean: [N, C, H, W], the same images before augmentation; required for the view `clean`. With the view
                `auto` give them in all blocks or in none.
            keys: [N] integers on the CPU, one for each distinct clean image (dataset index, and whether it is
                mirrored): the teacher then embeds each image once per run, but with the view `seen`. With both roles,
                of the real images only.
            loss_scale: carried only: the factor of the loss that is backpropagated (`GradScaler.get_scale()`).

        Raises:
            CaptureError: clean images are missing, or a problem in the block (see FeatureTap.capture).
        """

    @abstractmethod
    def forward(self, adversarial: Tensor | None = None) -> Distilled:
        """The terms of D in this step, each summed over real and fake; zero in a skipped step, and if carried.

        Args:
            adversarial: the loss of D so far, from the captured calls; required if `balance` is on.

        Raises:
            KDError: `balance` is on and the adversarial loss is missing.
            CaptureError: a role was not captured, or crossed pairs are on and real and fake differ in number.
            TeacherError: embeddings that are not finite or not [N, E].
        """

    @abstractmethod
    def for_generator(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        adversarial: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Distilled:
        """The terms of G, with gradient through the frozen teacher into `fake`; zero if none is active.

        With several processes they are those of the joint batch.

        Args:
            fake: [N, C, H, W], attached to G's graph; before augmentation, but with the view `seen` as D sees them.
            real: [M, C, H, W], treated like `fake`: both augmented or neither; see `generator_needs`.
            adversarial: the loss of G on these images; required by a term with a least gradient ratio.
            keys: [M], for real images that are not augmented: as in `capture`, each is embedded once.

        Raises:
            KDError: real images or the adversarial loss are required and missing.
            TeacherError: embeddings that are not finite or not [N, E].
        """

    @abstractmethod
    def guided(
        self, fake: Tensor, real: Tensor | None = None, keys: Tensor | None = None, loss_scale: float = 1.0
    ) -> Tensor:
        """G's images, unchanged; the host's backward pass adds the gradients of the terms of G where it reaches them.

        Use it in place of `for_generator` where nothing can be added to the loss of G. Call it once for the images of
        a step, and go on with what it returns.

        Args:
            fake, real, keys: as in `for_generator`.
            loss_scale: as in `capture`.

        Raises:
            KDError: real images are required and missing.
            TeacherError: embeddings that are not finite or not [N, E].
        """

    @abstractmethod
    def explained(self) -> dict[str, float]:
        """The fraction of the teacher's variation that D predicts, over the latest steps, by term; `total` of all.

        1 - error / error of the best constant prediction. 1: D predicts the teacher exactly. At or below 0, D has
        learned nothing from the teacher, and the effect of distillation is regularisation. Empty before the first step.
        """

    @abstractmethod
    def held_out(self, images: Tensor, batch: int) -> Callable[[RunD], dict[str, float]]:
        """Returns a function that measures the fraction explained on images that D is not trained on.

        Args:
            images: [N, C, H, W]. The teacher embeds them once, now.
            batch: the number of images that it embeds at a time.

        Returns:
            `explained(run)`, which calls `run(images)` (with several teachers, once for each), which calls D on all or
            some at a time. As `explained()`; empty if no term of D compares with the teacher.
        """
