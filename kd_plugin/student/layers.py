"""Listing the layers of a discriminator that can be tapped, with a suggestion."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.errors import LayerError
from kd_plugin.student.features import TappedLayer, student_width, tensors_in, tensors_within
from kd_plugin.student.graph import Graph, nodes_behind
from kd_plugin.student.wrapped import device_of, inside

__all__ = ["Layer", "LayerChoice", "list_layers", "names_and_widths"]


@dataclass(frozen=True)
class Layer:
    """A module whose output can be a student feature.

    name: as `attach(layer=)` takes it, which takes the whole Layer too.
    kind: its class.
    width: F.
    shape: of its output; None where D was not run.
    suggested: the last feature before the logit.
    """

    name: str
    kind: str
    width: int
    shape: tuple[int, ...] | None
    suggested: bool

    def __str__(self) -> str:
        shape = "" if self.shape is None else f"  {list(self.shape)}"
        return f"{self.name}  {self.kind}  {self.width}{shape}{'  <- suggested' if self.suggested else ''}"


LayerChoice = str | Layer | Sequence[str | Layer]


def names_and_widths(choice: LayerChoice) -> tuple[str, dict[str, int]]:
    """The names between commas, and the widths that are known."""
    chosen = [choice] if isinstance(choice, str | Layer) else list(choice)
    names = ",".join(layer.name if isinstance(layer, Layer) else layer for layer in chosen)
    return names, {layer.name: layer.width for layer in chosen if isinstance(layer, Layer)}


def list_layers(discriminator: nn.Module, *inputs: Any) -> list[Layer]:
    """The layers that can be tapped, in the order in which they finish; each reads as one line.

    Args:
        discriminator: D, also inside its wrappers. A copy of it is run: D itself and the random state stay as they are.
        inputs: what D is called with: images, and whatever else it takes. With them those layers are listed that fire
            once a call, depend on the images and lead to the first tensor that D returns, with the shapes of their
            outputs. Attention maps are left out. Without inputs, those whose attributes tell their width, in the order
            of definition.

    Returns:
        One of them suggested: the last that finishes before the last layer with weights, which gives the logit.

    Raises:
        LayerError: what D returns does not depend on the images.
    """
    discriminator = inside(discriminator)
    candidates = _run(_copied(discriminator), inputs) if inputs else _told(discriminator)
    last = next((place for place in reversed(range(len(candidates))) if candidates[place][1]), len(candidates))
    best = next((layer for layer, _ in reversed(candidates[:last]) if layer.width > 1), None)
    return [replace(layer, suggested=layer is best) for layer, _ in candidates if layer.width > 1]


@dataclass(frozen=True)
class _Output:
    """A tensor that a layer returned, and the node of the graph that made it."""

    layer: TappedLayer
    shape: tuple[int, ...]
    node: Any
    attention: bool


Candidate = tuple[Layer, bool]  # the latter: whether it has weights of its own


def _told(discriminator: nn.Module) -> list[Candidate]:
    widths = ((name, module, student_width(module)) for name, module in discriminator.named_modules() if name)
    return [_candidate(name, module, width, None) for name, module, width in widths if width is not None]


def _candidate(name: str, module: nn.Module, width: int, shape: tuple[int, ...] | None) -> Candidate:
    return Layer(name, type(module).__name__, width, shape, suggested=False), _weighted(module)


def _run(discriminator: nn.Module, inputs: tuple[Any, ...]) -> list[Candidate]:
    """Run a copy of D. With gradients: the graph tells which outputs lie between images and logits."""
    given, images = _tracked(inputs)
    outputs: list[_Output] = []
    modules = {module: name for name, module in discriminator.named_modules() if name}
    hooks = [module.register_forward_hook(_noting(name, outputs)) for module, name in modules.items()]
    try:
        with _random_state_restored(device_of(discriminator)), torch.enable_grad():
            returned = discriminator(*given)
    finally:
        for hook in hooks:
            hook.remove()
    graph = Graph(images)
    logits = next((tensor for _, tensor in tensors_in(returned) if graph.depends(tensor.grad_fn)), None)
    if logits is None:
        raise LayerError("nothing that D returns depends, with a gradient, on the images it was given")
    times = Counter(output.layer.name for output in outputs)
    rows = len(images[0])
    on_path = set(nodes_behind(logits.grad_fn))
    return [
        _candidate(out.layer.name, out.layer.module, out.layer.width or 0, out.shape)
        for out in outputs
        if times[out.layer.name] == 1 and out.shape[0] == rows and not out.attention
        if out.node in on_path and graph.depends(out.node)
    ]


def _noting(name: str, outputs: list[_Output]) -> Any:
    def note(module: nn.Module, _args: Any, returned: Any) -> None:
        for key, tensor in tensors_in(returned):
            if tensor.ndim in (2, 3, 4) and tensor.is_floating_point():
                layer = TappedLayer.seen(name, module, key, tensor)
                outputs.append(_Output(layer, tuple(tensor.shape), tensor.grad_fn, _is_attention(tensor)))

    return note


def _tracked(inputs: tuple[Any, ...]) -> tuple[Any, list[Tensor]]:
    """The inputs with images that gradients are computed for, and these: the tensors [N, C, H, W] in them, or else the
    first of floating point."""
    found = [tensor for tensor in tensors_within(inputs) if tensor.is_floating_point()]
    chosen = [tensor for tensor in found if tensor.ndim == 4] or found[:1]
    if not chosen:
        raise LayerError("list_layers(D, ...): give the images that D is called with")
    images = {id(tensor): tensor.detach().clone().requires_grad_() for tensor in chosen}
    return _replaced(inputs, images), list(images.values())


def _replaced(value: Any, images: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return images.get(id(value), value)
    if isinstance(value, Mapping):
        return {key: _replaced(part, images) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(part, images) for part in value]
    return value


def _copied(discriminator: nn.Module) -> nn.Module:
    """Tensors with a graph, which torch.nn.utils.spectral_norm leaves on a module, are copied without it."""
    left = (value for module in discriminator.modules() for value in vars(module).values())
    memo = {id(value): value.detach().clone() for value in left if isinstance(value, Tensor) and not value.is_leaf}
    return copy.deepcopy(discriminator, memo)


@contextmanager
def _random_state_restored(device: torch.device) -> Iterator[None]:
    state = random.getstate()
    with (
        torch.random.fork_rng([]) if device.type == "cpu" else torch.random.fork_rng([device], device_type=device.type)
    ):
        yield
    random.setstate(state)


def _weighted(module: nn.Module) -> bool:
    return not isinstance(module, nn.Embedding) and any(p.ndim >= 2 for p in module.parameters(recurse=False))


def _is_attention(features: Tensor) -> bool:
    """[..., T, S]: rows of weights that add up to 1."""
    rows = features.detach().float()
    if rows.ndim < 3 or rows.shape[-1] < 2 or rows.min() < 0:
        return False
    return bool(((rows.sum(dim=-1) - 1).abs() < 1e-2).all())
