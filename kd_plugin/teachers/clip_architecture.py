"""Choosing the activation and head count of a CLIP, which names and shapes of weights do not determine.

Two things are silent: the activation (OpenAI's networks have QuickGELU, most of open_clip's have GELU; both have the
same names and shapes, and the wrong one puts every embedding off by a few percent) and the width of an attention head,
which OpenAI's code takes to be 64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from kd_plugin.errors import TeacherError, arg

__all__ = ["Activation", "activation_in", "check_heads", "set_activation"]

Activation = Literal["QuickGELU", "GELU"]
_PLACE = "mlp.gelu"  # the end of the name of every activation in OpenAI's transformers

# Widths of published vision transformers whose heads are not 64 wide, with the model that has them (open_clip).
_OTHER_HEADS = {1280: "ViT-H/14, heads of 80", 1408: "ViT-g/14, heads of 88", 1664: "ViT-bigG/14, heads of 104"}


def activation_in(archive: Any) -> Activation | None:
    """Which activation the compiled code of a TorchScript archive computes; None if it has no transformer."""
    for name, module in archive.named_modules():
        if name.endswith(_PLACE):
            code = str(module.graph)
            return "GELU" if "aten::gelu" in code else "QuickGELU" if "aten::sigmoid" in code else None
    return None


def set_activation(model: nn.Module, activation: Activation) -> None:
    """Makes OpenAI's network, which is built with QuickGELU, compute with `activation`."""
    if activation == "QuickGELU":
        return
    for name, _module in list(model.named_modules()):
        if name.endswith(_PLACE):
            block, _, child = name.rpartition(".")
            model.get_submodule(block).add_module(child, nn.GELU())


def check_heads(weights: Mapping[str, Tensor], name: str) -> None:
    """
    Raises:
        TeacherError: a width that is not a multiple of 64, or that of a known model with other heads.
    """
    for tower, key in (("image", "visual.class_embedding"), ("text", "ln_final.weight")):
        if key not in weights:  # a ResNet has no class embedding
            continue
        width = int(weights[key].shape[0])
        known = _OTHER_HEADS.get(width) if tower == "image" else None
        if width % 64 or known:
            raise TeacherError(
                f"teacher '{name}': its {tower} transformer is {width} wide ({known or 'no multiple of 64'}); OpenAI's "
                "architecture has heads of 64, with which these weights would give wrong embeddings; give one of "
                f"OpenAI's files, such as {arg('teacher', 'clip:ViT-B/32')}"
            )
