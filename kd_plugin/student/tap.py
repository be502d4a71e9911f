"""Reading the outputs of named layers of a discriminator, and its input, with hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from kd_plugin.errors import CaptureError, LayerError, arg, nearest
from kd_plugin.student.heads import pooled
from kd_plugin.types import ROLES, Captured, Role

__all__ = ["FeatureTap", "device_of", "inside"]


Split = Callable[[Tensor], tuple[Tensor, Tensor]]  # a layer's output -> what is kept, and what D goes on with


def shared(output: Tensor) -> tuple[Tensor, Tensor]:
    """Both attached to D's graph; what follows may work in place, as nn.ReLU(inplace=True)."""
    return output, output.clone()


@dataclass
class _Sightings:
    """What the hooks recorded since the block began: one entry per call, features by layer."""

    features: dict[str, list[Tensor]]
    split: Split
    seen: list[Tensor] = field(default_factory=list)


class FeatureTap:
    """Collects features while a `capture` block is open, and returns them once.

    Not an nn.Module: it only borrows D. The hooks are removed with the block; one left on D would break its pickle
    and its deepcopy. A compiled D alone keeps them: what is traced at its first call is all it ever does.

    Args:
        discriminator: D; also inside DistributedDataParallel or torch.compile, which are looked through.
        layers: dotted names, as in `D.named_modules()`. The outputs of several are joined, pooled over their maps.

    Raises:
        LayerError: D has no such layer.
    """

    def __init__(self, discriminator: nn.Module, layers: Sequence[str]) -> None:
        self._wrapped = _Wrapped.of(discriminator)
        modules = {name: module for name, module in self._wrapped.module.named_modules() if name}
        for layer in layers:
            if layer not in modules:
                last = "; its last ones: " + ", ".join(f"'{name}'" for name in list(modules)[-5:]) if modules else ""
                raise LayerError(f"{arg('layer', layer)} is not in the discriminator{nearest(layer, modules) or last}")
        self.layers = {layer: modules[layer] for layer in layers}
        self._captured: dict[Role, Captured] = {}
        self._sightings: _Sightings | None = None  # of the open block
        if self._wrapped.compiled:
            self._hook()

    @property
    def device(self) -> torch.device:
        """Where D is."""
        return device_of(self._wrapped.module)

    @property
    def distributed(self) -> bool:
        """Whether D is inside DistributedDataParallel."""
        return self._wrapped.distributed

    def _hook(self) -> list[RemovableHandle]:
        """Start observing; calls outside a block are ignored."""
        see_input, see_output = self._see_input, self._see_output
        if self._wrapped.compiled:  # called from compiled code, as they are
            see_input, see_output = map(torch.compiler.disable, (see_input, see_output))
        return [
            self._wrapped.entrance.register_forward_pre_hook(see_input, with_kwargs=True),
            *(layer.register_forward_hook(functools.partial(see_output, name)) for name, layer in self.layers.items()),
        ]

    def _see_input(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._sightings is not None:
            images = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim == 4)
            self._sightings.seen.extend(image.detach() for image in list(images)[:1])

    def _see_output(self, name: str, _module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        if self._sightings is None:
            return None
        if not isinstance(output, Tensor):
            raise LayerError(f"{arg('layer', name)} returns a {type(output).__name__}, not a tensor")
        features, passed = self._sightings.split(output)
        self._sightings.features[name].append(features)
        return passed

    @contextmanager
    def capture(
        self, role: Role, clean: Tensor | None = None, keys: Tensor | None = None, split: Split = shared
    ) -> Iterator[None]:
        """Everything D is called with in this block belongs to `role`; several calls are joined along N.

        Args:
            split: applied to the layers' outputs.

        Raises:
            CaptureError: the layer did not fire, the role is unknown or already taken, blocks are nested, or
                images and features differ in number.
            LayerError: the layer's output is not a tensor, or not one row per image.
        """
        self._check_free(role)
        sightings = _Sightings({name: [] for name in self.layers}, split)
        hooks = [] if self._wrapped.compiled else self._hook()
        self._sightings = sightings
        try:
            yield
        except BaseException:
            self._captured.clear()  # the step is lost: the next one starts clean
            raise
        finally:
            self._sightings = None
            for hook in hooks:
                hook.remove()
        self._captured[role] = self._joined(role, sightings, clean, keys)

    def drain(self) -> dict[Role, Captured]:
        """What was captured for both roles; afterwards the tap is empty.

        Raises:
            CaptureError: a role is missing.
        """
        captured, self._captured = self._captured, {}
        for role in ROLES:
            if role not in captured:
                raise CaptureError(
                    f"nothing was captured for '{role}': run D inside `with kd.capture('{role}'):` first"
                )
        return captured

    def release(self, role: Role) -> Captured:
        """What was captured for one role; afterwards it is free again."""
        return self._captured.pop(role)

    def _check_free(self, role: Role) -> None:
        if role not in ROLES:
            raise CaptureError(f"unknown role '{role}'{nearest(role, ROLES)}")
        if self._sightings is not None:
            raise CaptureError("capture blocks cannot be nested: close one before the next is opened")
        if role in self._captured:
            self._captured.clear()  # an abandoned step must not stop the one after this message
            raise CaptureError(
                f"'{role}' was captured twice before kd() was called; put all of a step's '{role}' calls of D into "
                "one block"
            )

    def _joined(self, role: Role, sightings: _Sightings, clean: Tensor | None, keys: Tensor | None) -> Captured:
        seen = torch.cat(sightings.seen) if sightings.seen else None
        count = None if seen is None else len(seen)
        parts = []
        for name, outputs in sightings.features.items():
            if not outputs:
                why = (
                    "call kd_plugin.attach() before the first call of a compiled D, which never looks for hooks again"
                    if self._wrapped.compiled
                    else "call D in the block (parts of D that torch.compile has compiled skip hooks: compile D whole)"
                )
                raise CaptureError(f"the layer '{name}' did not fire inside capture('{role}'): {why}")
            parts.append(outputs[0] if len(outputs) == 1 else torch.cat(outputs))
            count = len(parts[0]) if count is None else count
            if len(parts[-1]) != count:
                raise LayerError(
                    f"{arg('layer', name)} gave {len(parts[-1])} rows for {count} images; it must fire once per "
                    "call, with one row per image"
                )
        features = parts[0] if len(parts) == 1 else torch.cat([pooled(part) for part in parts], dim=1)
        for what, noun, given in (("clean", "clean images", clean), ("keys", "keys", keys)):
            if given is not None and len(given) != len(features):
                raise CaptureError(f"capture('{role}', {what}=...): {len(given)} {noun}, but D saw {len(features)}")
        every = tuple(output for outputs in sightings.features.values() for output in outputs)
        return Captured(features, every, seen, None if clean is None else clean.detach(), keys)


@dataclass(frozen=True)
class _Wrapped:
    """D inside its wrappers.

    module:      D itself.
    entrance:    whose call shows D's input.
    compiled:    torch.compile is at work.
    distributed: DistributedDataParallel averages D's gradients.
    """

    module: nn.Module
    entrance: nn.Module
    compiled: bool
    distributed: bool

    @classmethod
    def of(cls, discriminator: nn.Module) -> _Wrapped:
        compiled: nn.Module | None = None
        distributed = False
        while True:
            if isinstance(discriminator, DistributedDataParallel):
                discriminator, distributed = discriminator.module, True
            elif isinstance(inner := getattr(discriminator, "_orig_mod", None), nn.Module):
                compiled = discriminator if compiled is None else compiled  # hooks of the wrapper run uncompiled
                discriminator = inner
            else:
                break
        in_place = getattr(discriminator, "_compiled_call_impl", None) is not None  # D.compile()
        entrance = discriminator if compiled is None else compiled
        return cls(discriminator, entrance, in_place or compiled is not None, distributed)


def device_of(discriminator: nn.Module) -> torch.device:
    """Where D is."""
    parameter = next(discriminator.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def inside(discriminator: nn.Module) -> nn.Module:
    """D without DistributedDataParallel and torch.compile."""
    return _Wrapped.of(discriminator).module
