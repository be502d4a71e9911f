"""Listing the layers of a discriminator that can be tapped, with a suggestion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.student.features import student_width
from kd_plugin.student.wrapped import inside

__all__ = ["Layer", "list_layers"]


@dataclass(frozen=True)
class Layer:
    """A module whose output can be a student feature.

    name: as `attach(layer=)` takes it.
    kind: its class.
    width: F.
    shape: of its output, [N, F] or [N, F, h, w]; None where D was not run.
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


@torch.no_grad()
def list_layers(discriminator: nn.Module, *inputs: Any) -> list[Layer]:
    """The layers that can be tapped, in the order in which they finish; each reads as one line.

    Args:
        discriminator: D, also inside DistributedDataParallel or torch.compile.
        inputs: what D is called with (images, and labels where it takes some). With them D is run once, in the mode it
            is in, and all layers that fire once a call are listed with their shapes. Without, only those whose
            attributes tell their width, in the order of definition.

    Returns:
        One of them suggested: the last that finishes before the last layer with weights, which gives the logit.
    """
    discriminator = inside(discriminator)
    names = {module: name for name, module in discriminator.named_modules() if name}
    candidates = _run(discriminator, names, inputs) if inputs else _told(names)
    last = next((place for place in reversed(range(len(candidates))) if candidates[place][3]), len(candidates))
    best = next((place for place in reversed(range(last)) if candidates[place][1] > 1), None)
    return [
        Layer(names[module], type(module).__name__, width, shape, place == best)
        for place, (module, width, shape, _) in enumerate(candidates)
        if width > 1
    ]


Found = tuple[nn.Module, int, tuple[int, ...] | None, bool]  # the last: whether it has weights


def _weighted(module: nn.Module) -> bool:
    return not isinstance(module, nn.Embedding) and any(p.ndim >= 2 for p in module.parameters(recurse=False))


def _told(names: dict[nn.Module, str]) -> list[Found]:
    widths = ((module, student_width(module)) for module in names)
    return [(module, width, None, _weighted(module)) for module, width in widths if width is not None]


def _run(discriminator: nn.Module, names: dict[nn.Module, str], inputs: tuple[Any, ...]) -> list[Found]:
    fired: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim in (2, 4):
            fired.append((module, output))

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        discriminator(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    times = [module for module, _ in fired]
    rows = next((len(value) for value in inputs if isinstance(value, Tensor)), None)
    return [
        (module, int(output.shape[1]), tuple(output.shape), _weighted(module))
        for module, output in fired
        if times.count(module) == 1 and len(output) == rows
    ]
