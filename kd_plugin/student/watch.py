"""Observing the calls of a discriminator and of its layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from kd_plugin.student.wrapped import Wrapped

__all__ = ["Watch", "watched"]

SeeInput = Callable[[Any], None]  # (args, kwargs) of a call
SeeOutput = Callable[[Any], Any]  # what a layer returns -> what D continues with


class Watch(Protocol):
    def remove(self) -> None: ...


def watched(wrapped: Wrapped, see_input: SeeInput, layers: Sequence[tuple[nn.Module, SeeOutput]]) -> list[Watch]:
    """To be removed in reverse order.

    A copy of a compiled D, in memory or in a file, keeps its hooks, but they do nothing there.
    """
    if not wrapped.compiled:
        hooks = [layer.register_forward_hook(_OutputHook(see)) for layer, see in layers]
        return [_WatchedForward(wrapped.entrance, see_input), *hooks]
    disable: Callable[[Any], Any] = torch.compiler.disable  # called from compiled code, as they are
    entrance = wrapped.entrance.register_forward_pre_hook(_InputHook(disable(see_input)), with_kwargs=True)
    return [entrance, *(layer.register_forward_hook(_OutputHook(disable(see))) for layer, see in layers)]


class _WatchedForward:
    """Sees the inputs of a module also where its `forward` is called directly, which runs no hooks."""

    def __init__(self, module: nn.Module, see_input: SeeInput) -> None:
        self._module = module
        self._own = vars(module).get("forward")  # set by somebody else
        original = module.forward

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            see_input((args, kwargs))
            return original(*args, **kwargs)

        module.forward = forward

    def remove(self) -> None:
        if self._own is None:
            del self._module.forward
        else:
            self._module.forward = self._own


class _InputHook:
    def __init__(self, see_input: SeeInput) -> None:
        self._see_input = see_input

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._see_input((args, kwargs))

    def __reduce__(self) -> tuple[type[_InertHook], tuple[()]]:
        return _InertHook, ()


class _OutputHook:
    def __init__(self, see_output: SeeOutput) -> None:
        self._see_output = see_output

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        return self._see_output(output)

    def __reduce__(self) -> tuple[type[_InertHook], tuple[()]]:
        return _InertHook, ()


class _InertHook:
    """What a hook is copied as: the tap stays with the original."""

    def __call__(self, *_args: Any) -> None:
        return None
