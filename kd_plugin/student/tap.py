"""Reading the outputs of named layers of a discriminator, and its input, while blocks are open."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.errors import CaptureError, LayerError, arg, nearest
from kd_plugin.student.features import Layout, TappedLayer, plain, split_key, tensors_within
from kd_plugin.student.graph import last_parameter
from kd_plugin.student.passage import Passage
from kd_plugin.student.rows import Rows
from kd_plugin.student.watch import Watch, watched
from kd_plugin.student.wrapped import Wrapped
from kd_plugin.types import ROLES, Captured, Role

__all__ = ["FeatureTap"]


_AFTER_BACKWARD = (
    "a backward pass through it has freed its graph; call kd() before, for one loss of both roles, or, where the loop "
    "calls backward for each role, use attach(..., carried=True)"
)

Split = Callable[[Tensor], tuple[Tensor, Tensor]]  # a layer's output -> what is kept, and what D continues with


def shared(output: Tensor) -> tuple[Tensor, Tensor]:
    """Both attached to D's graph; what follows may work in place, as nn.ReLU(inplace=True)."""
    return plain(output), output.clone()


@dataclass
class _Sightings:
    """What was observed since the block began: one entry per call, features by layer."""

    outputs: dict[str, list[Tensor]]
    split: Split
    seen: list[Tensor] = field(default_factory=list)
    learns: bool = False  # a gradient can reach D
    without_gradients: bool = False  # a layer ran where gradients are off
    passage: Passage = field(default_factory=Passage)


class FeatureTap:
    """Collects features while a `capture` block is open, and returns them once.

    Not an nn.Module: it only borrows D. What observes D is removed with the block; left on D it would break its pickle
    and its deepcopy. A compiled D alone keeps its hooks: what is traced at its first call is all it ever does.

    Args:
        discriminator: D; also inside its wrappers, which are looked through.
        layers: dotted names, as in `D.named_modules()`; `name[0]` and `name[key]` for one of the tensors that a layer
            returns. The features of several are joined.
        widths: F, by layer, where its attributes do not tell.
        layout: of the features, see `pooled`.

    Raises:
        LayerError: D has no such layer.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        layers: Sequence[str],
        widths: Mapping[str, int] | None = None,
        layout: Layout = "auto",
    ) -> None:
        self._wrapped = Wrapped.of(discriminator)
        modules = {name: module for name, module in self._wrapped.module.named_modules() if name}
        self.layers: dict[str, TappedLayer] = {}
        for layer in layers:
            name, key = split_key(layer)
            if name not in modules:
                last = "; its last ones: " + ", ".join(f"'{name}'" for name in list(modules)[-5:]) if modules else ""
                raise LayerError(f"{arg('layer', layer)} is not in the discriminator{nearest(name, modules) or last}")
            self.layers[layer] = TappedLayer.of(layer, modules[name], key, (widths or {}).get(layer), layout)
        self._reference: nn.Parameter | None = None
        self._captured: dict[Role, Captured] = {}
        self._sightings: _Sightings | None = None  # of the open block
        if self._wrapped.compiled:
            self._watch()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_captured": {}, "_sightings": None}

    @property
    def device(self) -> torch.device:
        """Where D is."""
        return self._wrapped.device

    @property
    def discriminator(self) -> nn.Module:
        """D without its wrappers."""
        return self._wrapped.module

    def reference(self) -> nn.Parameter | None:
        """A trained parameter of D behind the layers: a backward pass reaches it after them."""
        return self._reference

    @contextmanager
    def capture(
        self,
        rows: Rows,
        clean: Tensor | None = None,
        keys: Tensor | None = None,
        split: Split = shared,
    ) -> Iterator[None]:
        """Observes the calls of D in this block; several calls are joined along N.

        Args:
            rows: the roles of D's rows.
            clean: the images of all rows before augmentation.
            keys: of the real ones.
            split: applied to the layers' outputs.

        Raises:
            CaptureError: the layer did not fire, blocks are nested, or images and features differ in number.
            LayerError: the layer's output is not a tensor, or not one row per image.
        """
        self._check_free(rows.roles)
        sightings = _Sightings({name: [] for name in self.layers}, split)
        watches = [] if self._wrapped.compiled else self._watch()
        self._sightings = sightings
        try:
            yield
        except BaseException:
            self._captured.clear()  # the step is lost: the next one starts clean
            raise
        finally:
            self._sightings = None
            for watch in reversed(watches):
                watch.remove()
        self._captured |= self._joined(rows, sightings, clean, keys)

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

    def release(self, roles: Sequence[Role]) -> dict[Role, Captured]:
        """What was captured for these roles; afterwards they are free again."""
        return {role: self._captured.pop(role) for role in roles}

    def _watch(self) -> list[Watch]:
        """Start observing; calls outside a block are ignored."""
        see_outputs = {name: functools.partial(self._see_output, name) for name in self.layers}
        return watched(
            self._wrapped, self._see_input, [(layer.module, see_outputs[name]) for name, layer in self.layers.items()]
        )

    def _see_input(self, inputs: Any) -> None:
        if self._sightings is not None:
            images = next((tensor for tensor in tensors_within(inputs) if tensor.ndim == 4), None)
            if images is not None:
                self._sightings.seen.append(plain(images.detach()))

    def _see_output(self, name: str, output: Any) -> Any:
        if self._sightings is None:
            return None
        layer = self.layers[name]
        features = layer.read(output)
        self._sightings.learns |= features.requires_grad
        if self._reference is None or not self._reference.requires_grad:
            self._reference = last_parameter(features)
        if not torch.is_grad_enabled():
            self._sightings.without_gradients = True
        kept, passed = self._sightings.split(features)
        self._sightings.outputs[name].append(kept)
        self._sightings.passage.watch(kept)
        return layer.replace(output, passed)

    def _check_free(self, roles: Sequence[Role]) -> None:
        if self._sightings is not None:
            raise CaptureError("capture blocks cannot be nested: close one before the next is opened")
        taken = [role for role in roles if role in self._captured]
        if taken:
            self._captured.clear()
            warnings.warn(
                f"'{taken[0]}' was captured again before kd() was called, and what was captured first is dropped; put "
                f"all of a step's '{taken[0]}' calls of D into one block, and call kd() in every step",
                stacklevel=5,
            )

    def _joined(
        self, rows: Rows, sightings: _Sightings, clean: Tensor | None, keys: Tensor | None
    ) -> dict[Role, Captured]:
        self._check_calls(rows, sightings)
        features = [
            _cat([layer.pooled(output) for output in sightings.outputs[name]]) for name, layer in self.layers.items()
        ]
        joined = _cat(features, dim=1)
        if clean is not None and len(clean) != len(joined):
            raise CaptureError(f"{_call(rows, 'clean=...')}: {len(clean)} clean images, but D saw {len(joined)}")
        calls = [len(output) for output in sightings.outputs[next(iter(self.layers))]]
        by_role = _by_role(rows, torch.split(joined, calls) if len(calls) > 1 else [joined])
        seen = _by_role(rows, sightings.seen) if sightings.seen else {}
        of_clean = {} if clean is None else rows.split(plain(clean.detach()))
        keyed = "real" if len(rows.roles) > 1 else rows.roles[0]
        if keys is not None and len(keys) != len(by_role[keyed]):
            raise CaptureError(f"{_call(rows, 'keys=...')}: {len(keys)} keys, but D saw {len(by_role[keyed])}")
        outputs = tuple(output for calls in sightings.outputs.values() for output in calls)
        blocked = self._blocked(sightings)
        return {
            role: Captured(
                by_role[role],
                outputs if role == rows.roles[0] else (),  # a call with both roles has one output
                seen.get(role),
                of_clean.get(role),
                keys if role == keyed else None,
                blocked,
            )
            for role in rows.roles
        }

    def _check_calls(self, rows: Rows, sightings: _Sightings) -> None:
        """Every layer fired, with one row per image."""
        shapes = {tuple(images.shape[1:]) for images in sightings.seen}
        if len(shapes) > 1:
            raise CaptureError(
                f"D was called with images of different shapes in one block ({_listed(shapes)}); put only the calls "
                "with one of them into the block, or attach() once for each"
            )
        expected = [len(images) for images in sightings.seen]
        for name, outputs in sightings.outputs.items():
            if not outputs:
                why = (
                    "call kd_plugin.attach() before the first call of a compiled D, which never looks for hooks again"
                    if self._wrapped.compiled
                    else "call D in the block (parts of D that torch.compile has compiled skip hooks: compile D whole)"
                )
                raise CaptureError(f"the layer '{name}' did not fire inside {_call(rows)}: {why}")
            given = [len(output) for output in outputs]
            expected = expected or given
            if sum(given) != sum(expected) or (len(rows.roles) > 1 and given != expected):
                raise LayerError(
                    f"{arg('layer', name)} gave {sum(given)} rows for {sum(expected)} images; it must fire once per "
                    "call, with one row per image"
                )

    def _blocked(self, sightings: _Sightings) -> Callable[[], str]:
        """Captured.blocked."""
        why = "" if sightings.learns else self._why_frozen(sightings.without_gradients)
        return lambda: _AFTER_BACKWARD if sightings.passage.freed else why

    def _why_frozen(self, without_gradients: bool) -> str:
        if without_gradients:
            return (
                "it ran inside D where gradients are off; with torch.utils.checkpoint pass use_reentrant=False"
                if torch.is_grad_enabled()
                else "D ran under torch.no_grad()"
            )
        if not any(parameter.requires_grad for parameter in self._wrapped.module.parameters()):
            return "all parameters of D are frozen; call D.requires_grad_(True) before D's step"
        return "it and all layers before it are frozen; choose a layer behind one that is trained"


def _by_role(rows: Rows, calls: Sequence[Tensor]) -> dict[Role, Tensor]:
    parts = [rows.split(call) for call in calls]
    return {role: _cat([part[role] for part in parts]) for role in rows.roles}


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=dim)


def _call(rows: Rows, *arguments: str) -> str:
    roles = f"'{rows.roles[0]}'" if len(rows.roles) == 1 else str(rows.roles)
    return f"capture({', '.join([roles, *arguments])})"


def _listed(shapes: set[tuple[int, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in sorted(shapes))
