"""A teacher made of a third-party network: the common part of `hf:` and `open_clip:`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_plugin.errors import PromptError, TeacherError, arg
from kd_plugin.teachers.base import Frozen, check_images, fingerprint_of, freeze
from kd_plugin.teachers.precision import cast, choose_precision
from kd_plugin.teachers.preprocess import Preprocess
from kd_plugin.teachers.stages import BlockOutputs, find_blocks
from kd_plugin.teachers.text_cache import kept_texts

__all__ = ["NetworkTeacher", "ready"]

ImageSide = Callable[[Tensor], Tensor]  # preprocessed images [N, 3, h, w] -> [N, E]
TextSide = Callable[[Sequence[str]], Tensor]  # P texts -> [P, E]
_PROBE_IMAGES = 2
_TEXTS_AT_ONCE = 256


class NetworkTeacher(Frozen):
    """A frozen network with its own preprocessing. Its stages are the blocks of its image tower.

    Args:
        name: the spec.
        model: the network, on `device`, in its number types.
        image_side: calls its image tower.
        text_side: calls its text tower, on the model's device; None where it has none.
        preprocess: [N, 3, H, W] in [-1, 1] -> what the image tower takes.
        device: where it lives.
        fingerprint, precision: see `ready`.
        remark: for the log.

    Raises:
        TeacherError: the image tower does not give [N, E].
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        image_side: ImageSide,
        text_side: TextSide | None,
        preprocess: Preprocess,
        device: torch.device | str,
        fingerprint: str,
        precision: str,
        remark: str = "",
    ) -> None:
        self.name, self.remark = name, remark
        self.fingerprint, self.precision = fingerprint, precision
        self.image_size, self.normalisation = preprocess.crop, preprocess.normalisation
        self.network, self._image_side, self._text_side = freeze(model), image_side, text_side
        self._preprocess = preprocess
        self.vocabulary: tuple[str, ...] | None = None if text_side else ()  # any text, or none
        probe = torch.zeros(_PROBE_IMAGES, 3, preprocess.crop, preprocess.crop, device=device)
        self._device = probe.device  # 'cuda:0' where the caller said 'cuda': it is compared with that of tensors
        self._blocks = BlockOutputs(find_blocks(model))
        with torch.no_grad():
            embeddings = self._blocks.learn_layout(lambda: self.embed_images(probe), len(probe))
        if embeddings.ndim != 2 or len(embeddings) != _PROBE_IMAGES:
            raise TeacherError(
                f"{arg('teacher', name)}: its image tower gives {list(embeddings.shape)}, expected [N, E]"
            )
        self.embed_dim = int(embeddings.shape[1])

    def embed_images(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> [N, E] float32, not normalised; see `Teacher`."""
        check_images(images, self._device)
        with torch.autocast(self._device.type, enabled=False):
            shown = self._preprocess(images.float())
            weight = next(value for value in self.network.parameters() if value.is_floating_point())
            return self._image_side(shown.to(weight.dtype)).float()

    @property
    def stage_names(self) -> tuple[str, ...]:
        return self._blocks.names

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Sequence[Tensor]]:
        return self._blocks.during(lambda: self.embed_images(images), names)

    def shown(self, images: Tensor) -> Tensor:
        return self._preprocess.shown(images)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """P texts -> [P, E] float32, not normalised; see `Teacher`.

        Raises:
            TeacherError: it has no text encoder.
            PromptError: no text, an empty one, or one that is too long.
        """
        if self._text_side is None:
            raise TeacherError(
                f"{arg('teacher', self.name)}: this teacher has no text encoder, which CGKD and the diversity term "
                "need; set "
                f"{arg('cgkd', 0)} and {arg('diversity', 0)}"
            )
        if not texts:
            raise PromptError(f"teacher '{self.name}' was given no prompt to embed; give texts with {arg('prompts')}")
        for text in texts:
            if not text.strip():
                raise PromptError(
                    f"{arg('prompts')}: an empty prompt ({text!r}) has no words: write a text, or remove the line", text
                )
        side = self._text_side

        def compute() -> Tensor:
            with torch.autocast(self._device.type, enabled=False):
                parts = (texts[at : at + _TEXTS_AT_ONCE] for at in range(0, len(texts), _TEXTS_AT_ONCE))
                return torch.cat([side(part) for part in parts])

        embeddings = kept_texts(f"{self.fingerprint} {self.precision}", texts, compute).to(self._device)
        if embeddings.shape[1] != self.embed_dim:
            raise TeacherError(
                f"{arg('teacher', self.name)}: texts are embedded in {embeddings.shape[1]} numbers and images in "
                f"{self.embed_dim}: they cannot be compared; set {arg('cgkd', 0)} and {arg('diversity', 0)}"
            )
        return embeddings


def ready(model: nn.Module, precision: str, device: torch.device) -> tuple[str, str]:
    """Casts a network in float32; its fingerprint, and its number type from now on.

    Args:
        precision: `fp32`, `bf16` or `auto`; see `choose_precision`.
        device: where it is.
    """
    fingerprint = fingerprint_of(model.state_dict(), repr(model.config) if hasattr(model, "config") else "")
    matrices = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    chosen = choose_precision(precision, matrices, device)
    cast(matrices, chosen)
    return fingerprint, chosen
