"""Running an official training loop on a CPU for a few steps: small stand-ins for what it asks of CUDA."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["STEPS", "TorchOnCpu", "outcome", "put_on_cpu", "shorten"]

STEPS = 3
_PICTURES = 4  # in the grids of samples
_CHANNELS = {"channel_base": 512, "channel_max": 32}  # at most


def shorten(options: Any) -> None:
    """Few steps, small batches, narrow networks in float32, no metrics; in place."""
    batch = 4  # the least that the minibatch standard deviation takes
    options.update(
        num_gpus=1, batch_size=batch, batch_gpu=batch, total_kimg=STEPS * batch / 1000, metrics=[],
        image_snapshot_ticks=1, network_snapshot_ticks=1,
    )  # fmt: skip
    options["data_loader_kwargs"].update(num_workers=0, pin_memory=False)
    options["data_loader_kwargs"].pop("prefetch_factor", None)
    for name in ("G_kwargs", "D_kwargs"):
        _narrow(options[name])


def _narrow(options: Any) -> None:
    for key, value in options.items():
        if key in _CHANNELS:
            options[key] = min(value, _CHANNELS[key])
        elif key == "num_fp16_res":
            options[key] = 0
        elif hasattr(value, "items"):
            _narrow(value)


def outcome(run_dir: Path) -> list[str]:
    """What a rehearsal has written, in words."""
    names = ", ".join(sorted(path.name for path in run_dir.iterdir()))
    ticks = (run_dir / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    figures = {name: value["mean"] for name, value in json.loads(ticks[-1]).items() if "KD/" in name}
    values = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    return [
        f"the rehearsal went through; it wrote {names}",
        *([f"stats.jsonl has {values}"] if values else []),
    ]


class _Event:
    cuda_event = 0  # as of one that was not recorded

    def record(self, *_arguments: Any) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, _end: Any) -> float:
        return 0.0


class _Cuda:
    """What the loops ask of torch.cuda."""

    @staticmethod
    def Event(**_options: Any) -> _Event:
        return _Event()

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_options: 0


class TorchOnCpu:
    """torch, for one module: its CUDA devices are the CPU."""

    cuda = _Cuda()
    empty = staticmethod(torch.zeros)  # the loops show G an empty latent, which on a CPU may hold NaN

    @staticmethod
    def device(*_arguments: Any) -> torch.device:
        return torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def put_on_cpu() -> None:
    """For the rest of this process."""
    loop: Any = importlib.import_module("training.training_loop")
    loop.torch = TorchOnCpu()
    grid = loop.setup_snapshot_image_grid

    def small_grid(*arguments: Any, **options: Any) -> tuple[tuple[int, int], Any, Any]:
        _, images, labels = grid(*arguments, **options)
        return (_PICTURES, 1), np.asarray(images[:_PICTURES]), labels[:_PICTURES]

    loop.setup_snapshot_image_grid = small_grid
    Tensor.pin_memory = lambda self, *_arguments: self  # type: ignore[method-assign]
