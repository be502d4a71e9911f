"""OpenAI's CLIP as a teacher: its own network and tokenizer, frozen; embeddings are float32."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_plugin.errors import PromptError, TeacherError, arg
from kd_plugin.teachers.base import fingerprint_of
from kd_plugin.teachers.clip_architecture import Activation, check_heads, set_activation
from kd_plugin.teachers.clip_package import build_model, openai_tokenizer
from kd_plugin.teachers.network import NetworkTeacher
from kd_plugin.teachers.precision import DTYPES, choose_precision
from kd_plugin.teachers.preprocess import Preprocess

__all__ = ["OpenAIClip"]

# Without these, the weights are not a CLIP of OpenAI's architecture and naming.
_LANDMARKS = (
    "visual.conv1.weight",
    "token_embedding.weight",
    "positional_embedding",
    "ln_final.weight",
    "text_projection",
)
# Numbers that OpenAI's archives carry among the weights; they follow from the shapes.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_VOCAB_SIZE = 49408


class OpenAIClip(NetworkTeacher):
    """A CLIP of OpenAI's architecture (ViT or ModifiedResNet). Construct it with `from_state_dict` or `load_teacher`.

    Weights do not tell the activation they were trained with. Where the file holds code (OpenAI's archives do), that
    counts; else QuickGELU is assumed. `remark` says which; a wrong one puts embeddings off by a few percent.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """

    def __init__(self, model: Any, name: str, fingerprint: str, precision: str, remark: str) -> None:
        self.context_length = int(model.context_length)
        device = model.text_projection.device
        read = functools.partial(self._read, model)
        preprocess = Preprocess(int(model.visual.input_resolution), device=device)
        super().__init__(name, model, model.encode_image, read, preprocess, device, fingerprint, precision, remark)

    @classmethod
    def from_state_dict(
        cls,
        state_dict: dict[str, Tensor],
        name: str,
        device: torch.device | str = "cpu",
        activation: Activation | None = None,
        precision: str = "fp32",
        give_away: bool = False,
    ) -> OpenAIClip:
        """Build the network that the shapes in `state_dict` define.

        Args:
            state_dict: weights under OpenAI's names, of any floating type; copied.
            name: for logs and messages.
            device: where to compute.
            activation: what the weights were trained with; None: unknown, QuickGELU is assumed.
            precision: `fp32`, `bf16` or `auto`; see `choose_precision`.
            give_away: do not copy: each weight is freed as soon as the network has converted it, so they are never in
                memory twice; `state_dict` is left empty.

        Raises:
            TeacherError: the weights are not a CLIP of this architecture, or the clip package is missing.
        """
        weights = state_dict if give_away else dict(state_dict)
        for key in _NOT_WEIGHTS:
            weights.pop(key, None)
        _check_names(weights, name)
        check_heads(weights, name)
        vocab_size = weights["token_embedding.weight"].shape[0]
        if vocab_size != _VOCAB_SIZE:
            raise TeacherError(
                f"teacher '{name}' has {vocab_size} tokens, OpenAI's tokenizer has {_VOCAB_SIZE}; "
                "give weights trained with that tokenizer"
            )
        try:
            model, fingerprint, chosen = _build(weights, precision, device, activation or "QuickGELU", give_away)
        except TeacherError:  # the clip package is missing
            raise
        except (KeyError, IndexError, RuntimeError, AssertionError, ZeroDivisionError, ValueError) as error:
            raise TeacherError(
                f"teacher '{name}': the weights do not fit OpenAI's CLIP architecture ({_in_short(error)}); "
                f"give one of OpenAI's files, such as {arg('teacher', 'clip:ViT-B/32')}"
            ) from error
        set_activation(model, activation or "QuickGELU")
        remark = f"activation {activation}, as the file's own code" if activation else "activation QuickGELU, assumed"
        return cls(model.to(device), name, fingerprint, chosen, remark)

    def _read(self, model: Any, texts: Sequence[str]) -> Tensor:
        tokens = torch.tensor([self.tokenize(text) for text in texts])  # [P, context]
        embeddings: Tensor = model.encode_text(tokens.to(self._device))
        return embeddings

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """The words that this teacher has never seen: all their tokens embed to zero. None for a real CLIP."""
        known = self.network.get_parameter("token_embedding.weight").abs().sum(dim=1) > 0  # [vocabulary]
        words = dict.fromkeys(word for text in texts for word in text.split())
        return [word for word in words if not any(known[token] for token in openai_tokenizer()(word)[1:-1])]

    def tokenize(self, text: str) -> list[int]:
        """The text's token ids with start and end marks, padded with zeros to the context length."""
        tokens = openai_tokenizer()(text)
        if len(tokens) <= 2:  # nothing between the marks
            raise PromptError(
                f"{arg('prompts')}: an empty prompt ({text!r}) has no words: write a text, or remove the line", text
            )
        if len(tokens) > self.context_length:
            raise PromptError(
                f"{arg('prompts')}: '{_excerpt(text)}' has {len(tokens)} tokens, start and end marks included; teacher "
                f"'{self.name}' takes {self.context_length} at most: shorten it",
                text,
            )
        return tokens + [0] * (self.context_length - len(tokens))


def _build(
    weights: dict[str, Tensor], precision: str, device: torch.device | str, activation: str, give_away: bool
) -> tuple[Any, str, str]:
    """The network, the weights' fingerprint, and the number type chosen for `precision`. Empties `weights`."""
    # Building initialises at random before it loads. The caller's random stream must not notice: a run with a
    # teacher of weight 0 equals the run without one, to the bit.
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), warnings.catch_warnings():  # no second copy of the weights is made
            warnings.simplefilter("ignore")  # loading into the meta device does nothing, as intended
            model = build_model(weights)
        # OpenAI's code converts these parameters to half precision; they are safe in bfloat16 as well.
        short = {key for key, value in model.named_parameters() if value.dtype == torch.float16}
        chosen = choose_precision(precision, [weights[key] for key in short], device)
        fingerprint = fingerprint_of(weights, activation)
        types = {key: DTYPES[chosen] if key in short else torch.float32 for key in weights}
        converted = {
            key: weights.pop(key).detach().to(device, dtype, copy=not give_away) for key, dtype in types.items()
        }
        model.load_state_dict(converted, assign=True)
        _restore_masks(model)
    return model, fingerprint, chosen


def _restore_masks(model: Any) -> None:
    """Rebuild the causal mask, which is not a buffer but a tensor shared by all blocks of the text transformer."""
    mask = model.build_attention_mask()  # [context, context]
    for block in model.transformer.resblocks:
        block.attn_mask = mask


def missing_names(weights: Mapping[str, Tensor]) -> list[str]:
    """What every CLIP with OpenAI's names has, and these weights lack."""
    return [landmark for landmark in _LANDMARKS if landmark not in weights]


def _check_names(weights: Mapping[str, Tensor], name: str) -> None:
    missing = missing_names(weights)
    if missing:
        first_names = ", ".join(list(weights)[:3]) or "nothing"
        raise TeacherError(
            f"teacher '{name}' is not a CLIP with OpenAI's names: it lacks {', '.join(missing)} (it begins with: "
            f"{first_names}); give one of OpenAI's files, such as {arg('teacher', 'clip:ViT-B/32')}"
        )


def _excerpt(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _in_short(error: Exception) -> str:
    """torch lists every missing or unexpected name, over hundreds of lines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
