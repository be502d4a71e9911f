"""The loss of an official checkout, with distillation carried by its backward passes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click
import torch
from torch import Tensor

from kd_plugin.assembly import attach
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import from_dict
from kd_plugin.hosts.heads import HeadTraining
from kd_plugin.hosts.state import PickleWithState, load_state
from kd_plugin.student.features import student_width
from kd_plugin.student.layers import LayerChoice, list_layers
from kd_plugin.student.wrapped import inside
from kd_plugin.types import Role
from kd_plugin.user_code import import_code

__all__ = ["make"]

_D_PHASES, _G_PHASES = ("Dmain", "Dboth"), ("Gmain", "Gboth")
_EXPLAINED_EVERY = 64  # steps of D
_ROWS = 4  # images: the least that the minibatch standard deviation takes


def make(base: str, kd: dict[str, Any], **arguments: Any) -> Any:
    """An instance of the checkout's loss, with distillation. Called by its training loop, in each process.

    Args:
        base: the dotted name of its class.
        kd: `config` (options of KDConfig), `prompts` (texts or None), `shape` ([[C, H, W], L] of an image and
            a label), `imports`, `seed`, `resume` (a file or None).
        arguments: of its class.
    """
    module, _, name = base.rpartition(".")
    original = getattr(importlib.import_module(module), name)
    return type(f"Distilled{name}", (_Distilled, original), {})(kd=kd, **arguments)


if TYPE_CHECKING:

    class _Loss:
        """What the checkouts' losses have in common."""

        D: torch.nn.Module
        device: torch.device

        def __init__(self, **arguments: Any) -> None: ...

        def run_D(self, img: Tensor, *args: Any, **kwargs: Any) -> Tensor: ...

        def accumulate_gradients(self, phase: str, real_img: Tensor, gain: float, **others: Any) -> None: ...

else:
    _Loss = object


class _Distilled(_Loss):
    """Wraps the calls of D: the first of a phase of D sees generated images, the second real ones."""

    def __init__(self, kd: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        for spec in kd["imports"]:
            import_code(spec, spec)
        config = from_dict(KDConfig, kd["config"])
        self._kd = attach(
            self.D, config=config, layer=self._layers(config, *kd["shape"]), prompts=kd["prompts"], carried=True,
            averages=False, seed=kd["seed"], device=self.device,
        )  # fmt: skip
        if kd["resume"]:
            load_state(kd["resume"], self._kd)
        self._heads = HeadTraining(inside(self.D), self._kd.parameters())
        self._counted = -1  # steps of D's optimiser when the step of D began
        self._steps = 0  # of D with distillation
        self._phase, self._gain, self._calls = "", 1.0, 0
        self._real: Tensor | None = None
        self._report = importlib.import_module("torch_utils.training_stats").report
        loop = importlib.import_module("training.training_loop")
        loop.pickle = PickleWithState(self._kd.state_dict)  # type: ignore[attr-defined]

    def _layers(self, config: KDConfig, image: list[int], labels: int) -> LayerChoice:
        """Those of the options, with their widths; of a D that has no b4.fc, the layer before the logit."""
        modules = dict(inside(self.D).named_modules())
        known = [name in modules and student_width(modules[name]) is not None for name in config.layers]
        if all(known):
            return config.layer
        given = [torch.zeros(_ROWS, *image, device=self.device), torch.zeros(_ROWS, labels, device=self.device)]
        found = {layer.name: layer for layer in list_layers(self.D, *given)}
        if config.layer == KDConfig().layer and not any(known):
            layer = next((layer for layer in found.values() if layer.suggested), None)
            if layer is not None and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
                click.echo(f"kd_plugin: D has no {config.layer}; its layer '{layer.name}' is distilled (--kd-layer)")
            return layer or config.layer
        return [found.get(name, name) for name in config.layers]

    def accumulate_gradients(self, phase: str, real_img: Tensor, gain: float, **others: Any) -> None:
        self._phase, self._gain, self._calls, self._real = phase, gain, 0, real_img.detach()
        if phase in _D_PHASES and self._heads.steps != self._counted:  # the first round
            self._counted = self._heads.steps
            self._steps += 1
            self._kd.begin_step()
        super().accumulate_gradients(phase=phase, real_img=real_img, gain=gain, **others)
        self._phase, self._real = "", None
        if phase not in _D_PHASES:
            return
        for name, value in self._kd.latest.items():  # those of G's step too
            self._report(f"Loss/KD/{name}", value)
        if self._steps % _EXPLAINED_EVERY == 2:
            for name, share in self._kd.explained().items():
                self._report("KD/explained" if name == "total" else f"KD/explained/{name}", share)

    def run_D(self, img: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._phase in _G_PHASES:
            return super().run_D(self._kd.guided(img, self._real, loss_scale=self._gain), *args, **kwargs)
        if self._phase not in _D_PHASES:
            return super().run_D(img, *args, **kwargs)
        role: Role = "fake" if self._calls == 0 else "real"
        self._calls += 1
        with self._kd.capture(role, clean=img.detach(), loss_scale=self._gain):
            return super().run_D(img, *args, **kwargs)
