"""In which number type does a teacher compute? bfloat16 where that is faster, which on a CPU must be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from kd_plugin.config import PRECISIONS
from kd_plugin.errors import TeacherError, nearest

__all__ = ["cast", "choose_precision", "least_seconds"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WORTH_MEASURING = 20_000_000  # parameters: a smaller network is fast anyway


def cast(model: nn.Module, names: Collection[str], precision: str) -> None:
    """Turns the parameters `names` (the matrices; norms and embeddings stay in float32) into `fp32` or `bf16`."""
    for name in names:
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.to(_DTYPES[precision])


def choose_precision(
    model: nn.Module, names: Collection[str], wanted: str, forward: Callable[[], Tensor], device: torch.device
) -> str:
    """Casts the model and returns `fp32` or `bf16`.

    Args:
        model: on `device`, in float32.
        names: of the parameters that bfloat16 concerns.
        wanted: `fp32`, `bf16`, or `auto`: bf16 on CUDA; on a CPU whichever takes less time for `forward`, for a large
            model (some CPUs compute bfloat16 three times as fast, some at half the speed); else fp32.
        forward: a typical call.

    Raises:
        TeacherError: `wanted` is none of these.
    """
    if wanted not in PRECISIONS:
        raise TeacherError(f"--kd-precision: '{wanted}' is unknown{nearest(wanted, PRECISIONS)}")
    chosen = wanted
    if wanted == "auto":
        if device.type == "cuda":
            chosen = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        elif device.type == "cpu" and sum(p.numel() for p in model.parameters()) >= _WORTH_MEASURING:
            chosen = min(("fp32", "bf16"), key=lambda precision: _seconds(model, names, precision, forward))
        else:
            chosen = "fp32"
    cast(model, names, chosen)
    return chosen


@torch.no_grad()
def _seconds(model: nn.Module, names: Collection[str], precision: str, forward: Callable[[], Tensor]) -> float:
    """The least of a few calls after one to warm up. The weights come back as they were."""
    kept = {name: model.get_parameter(name).data for name in names}
    cast(model, names, precision)
    try:
        return least_seconds(forward)
    finally:
        for name, data in kept.items():
            model.get_parameter(name).data = data


def least_seconds(work: Callable[[], object], times: int = 3) -> float:
    """The least of a few calls after one to warm up, on a CPU."""
    work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)
