"""The Teacher protocol: the members every teacher has, and the optional ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = [
    "REQUIRED",
    "HasPrecision",
    "HasPreprocessing",
    "HasRemark",
    "HasStages",
    "KnowsItsWords",
    "ShowsItsInput",
    "Teacher",
]

REQUIRED = ("name", "embed_dim", "fingerprint", "vocabulary", "embed_images", "embed_texts")  # members of Teacher


@runtime_checkable
class Teacher(Protocol):
    """A frozen image-text model that embeds both sides in one space of width E = `embed_dim`.

    A teacher is deliberately not an `nn.Module`: stored as an attribute of one it registers nothing, so no optimiser,
    `.train()`, `.to()` or state_dict can reach its weights.
    """

    @property
    def name(self) -> str:
        """As given to `--kd`, for logs."""

    @property
    def embed_dim(self) -> int:
        """E, the width of the embeddings."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the weights: equal fingerprints mean equal embeddings."""

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The only texts it can embed; None if it takes any text, empty if it has no text encoder."""

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeds images, differentiably with respect to them.

        Args:
            images: [N, 3, H, W] in [-1, 1], on the teacher's device; any H and W, in any memory layout (our trainer's
                are channels-last on a CPU).

        Returns:
            [N, E] float32, not normalised.
        """

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeds P texts to [P, E] float32, not normalised, without gradient.

        Raises:
            PromptError: a text the teacher cannot embed.
            TeacherError: it has no text encoder.
        """


@runtime_checkable
class HasPrecision(Protocol):
    """A teacher that can compute in several number types: `fp32` or `bf16`, as it was loaded."""

    precision: str


@runtime_checkable
class HasPreprocessing(Protocol):
    """A teacher whose preprocessing can be replaced (preprocess="release").

    image_size:    side of its input, in pixels.
    normalisation: mean and standard deviation of the three channels, for images in [0, 1].
    """

    image_size: int
    normalisation: tuple[Sequence[float], Sequence[float]]


@runtime_checkable
class HasRemark(Protocol):
    """A teacher about which something was assumed: a line for the log, or an empty string."""

    remark: str


@runtime_checkable
class KnowsItsWords(Protocol):
    """A teacher that takes any text but understands certain words only."""

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """The words in `texts` that the teacher has never seen."""


@runtime_checkable
class ShowsItsInput(Protocol):
    """A teacher that can show what its network sees."""

    def shown(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] as they enter the network, without normalisation, in [-1, 1]."""


@runtime_checkable
class HasStages(Protocol):
    """A teacher that gives intermediate features of the pass that makes the embedding."""

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Early to late; empty if it turns out to have none."""

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Sequence[Tensor]]:
        """As `embed_images`, and the features of the stages `names`: [N, C, h, w] each, differentiable.

        C and, for images of one size, h and w are the same in every call.
        """
