"""What of a layer's output is the student feature, and how it becomes [N, F]."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kd_plugin.errors import LayerError, arg

__all__ = [
    "LAYOUTS",
    "Layout",
    "TappedLayer",
    "at_least_float32",
    "plain",
    "pooled",
    "student_width",
    "tensors_in",
    "tensors_within",
]

Layout = Literal["auto", "channels_first", "channels_last", "class_token"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_LAST = (nn.Linear, nn.LayerNorm)  # layers that work on the last axis, whatever the axes before it
_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def student_width(layer: nn.Module) -> int | None:
    """The number of features of a layer, from its attributes; None if they do not state it.

    Asked of the layer rather than of a first forward pass: the head's parameters must exist when the optimiser is
    made, which is before D has seen an image.
    """
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[-1])
    for attribute in ("out_features", "out_channels", "num_features", "num_channels"):
        width = getattr(layer, attribute, None)
        if isinstance(width, int):
            return width
    # The official StyleGAN2 layers keep nothing but their weight, [F, in] or [F, in, k, k].
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim in (2, 4) and not isinstance(layer, nn.Embedding):
        return int(weight.shape[0])
    return None


def at_least_float32(features: Tensor) -> Tensor:
    """float64 stays; a sum in a smaller type would overflow."""
    return features if features.dtype == torch.float64 else features.float()


def plain(tensor: Tensor) -> Tensor:
    """The same values and graph as a torch.Tensor. The host's subclass, which may carry attributes that the results of
    operations lack (BigGAN-PyTorch's Distribution), stays in the host.
    """
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def pooled(features: Tensor, layout: Layout = "auto", width: int | None = None) -> Tensor:
    """A feature without its places: their mean.

    Args:
        features: [N, F]; tokens [N, T, F] or [N, F, T]; a map [N, F, h, w] or [N, h, w, F].
        layout: the axis that holds the channels; `class_token`: of tokens [N, T, F] the first, instead of the mean.
            `auto`: the axis of this width; if both have it, or it is unknown, the last of tokens and of maps
            [N, h, h, F], the first of other maps.
        width: F.

    Returns:
        [N, F]; float64 stays, every other type becomes float32.

    Raises:
        LayerError: another number of dimensions, or no axis of this width.
    """
    features = at_least_float32(features)
    if features.ndim == 2:
        return features
    if features.ndim not in (3, 4):
        raise LayerError(
            f"{arg('layer')}: its output has the shape {list(features.shape)}; a student feature is [N, F], tokens "
            "[N, T, F] or a map [N, F, h, w]"
        )
    if layout == "class_token" and features.ndim == 3:
        return features[:, 0]
    if layout not in ("channels_first", "channels_last"):
        layout = _layout_of(features, width)
    places = range(2, features.ndim) if layout == "channels_first" else range(1, features.ndim - 1)
    return features.mean(dim=tuple(places))


def _layout_of(features: Tensor, width: int | None) -> Layout:
    first, last = features.shape[1], features.shape[-1]
    square = features.ndim == 4 and first == features.shape[2] != last  # [N, h, h, F]
    usual: Layout = "channels_last" if features.ndim == 3 or (square and width is None) else "channels_first"
    if width is None or first == last:
        return usual
    if width not in (first, last):
        raise LayerError(
            f"{arg('layer')}: its output has the shape {list(features.shape)}, and no axis holds {width} features; "
            f"pass width={last if features.ndim == 3 else first} to attach()"
        )
    return "channels_first" if width == first else "channels_last"


@dataclass(frozen=True)
class TappedLayer:
    """
    name:   as the user wrote it.
    module: whose output is read.
    key:    of an output that is a list, a tuple or a dict; None: it is a tensor.
    width:  F; None: not known before D is called.
    layout: of the features.
    """

    name: str
    module: nn.Module
    key: int | str | None
    width: int | None
    layout: Layout

    @classmethod
    def seen(cls, name: str, module: nn.Module, key: int | str | None, features: Tensor) -> TappedLayer:
        """One whose output is known."""
        layer = cls.of(name if key is None else f"{name}[{key}]", module, key, None, "auto")
        if features.ndim == 2:
            return replace(layer, width=features.shape[1])
        known = layer.width if layer.width in (features.shape[1], features.shape[-1]) else None
        layout = _layout_of(features, known) if layer.layout == "auto" else layer.layout
        return replace(layer, width=features.shape[1 if layout == "channels_first" else -1])

    @classmethod
    def of(cls, name: str, module: nn.Module, key: int | str | None, width: int | None, layout: Layout) -> TappedLayer:
        if layout == "auto" and isinstance(module, (*_FIRST, *_LAST)) and key is None:
            layout = "channels_last" if isinstance(module, _LAST) else "channels_first"
        return cls(name, module, key, student_width(module) if width is None and key is None else width, layout)

    def read(self, output: Any) -> Tensor:
        """The features in the layer's output.

        Raises:
            LayerError: it is not a tensor, or has nothing under the key.
        """
        if self.key is None:
            if isinstance(output, Tensor):
                return output
            raise LayerError(f"{arg('layer', self.name)} returns {_described(output)}{self._keys(output)}")
        try:
            found = output[self.key]
        except (KeyError, IndexError, TypeError):
            found = None
        if not isinstance(found, Tensor) or isinstance(output, Tensor):
            raise LayerError(
                f"{arg('layer', self.name)}: found no tensor under [{self.key}]; the layer returns "
                f"{_described(output)}{self._keys(output)}"
            )
        return found

    def replace(self, output: Any, features: Tensor) -> Any:
        """The same output with other features."""
        if self.key is None:
            return features
        if isinstance(output, Mapping):
            return type(output)({**output, self.key: features})  # type: ignore[call-arg]
        parts = [features if place == self.key else part for place, part in enumerate(output)]
        if hasattr(output, "_replace"):  # a named tuple
            return type(output)(*parts)
        return type(output)(parts)

    def pooled(self, features: Tensor) -> Tensor:
        """[N, F]."""
        return pooled(features, self.layout, self.width)

    def _keys(self, output: Any) -> str:
        """How to write the tensors inside."""
        base = self.name.partition("[")[0]
        ways = [f"'{base}[{key}]' ({list(part.shape)})" for key, part in tensors_in(output) if key is not None]
        return f"; write layer={' or '.join(ways)}" if ways else "; expected a tensor"


def split_key(name: str) -> tuple[str, int | str | None]:
    """`block[0]` -> the layer `block` and the key 0 of its output."""
    match = re.fullmatch(r"(.*)\[(\w+)\]", name)
    if match is None:
        return name, None
    key = match[2]
    return match[1], int(key) if key.isdigit() else key


def tensors_within(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_within(part)


def tensors_in(output: Any) -> list[tuple[int | str | None, Tensor]]:
    """The tensors that a layer returns, with the keys of TappedLayer."""
    if isinstance(output, Tensor):
        return [(None, output)]
    inner = output.items() if isinstance(output, Mapping) else enumerate(output) if _is_list(output) else ()
    return [(key, part) for key, part in inner if isinstance(part, Tensor)]


def _is_list(output: Any) -> bool:
    return isinstance(output, list | tuple)


def _described(output: Any) -> str:
    count = f" of {len(output)}" if _is_list(output) or isinstance(output, Mapping) else ""
    return f"a {type(output).__name__}{count}"
