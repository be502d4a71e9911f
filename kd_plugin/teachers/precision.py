"""The number type of a teacher: bfloat16 if that is faster, which on a CPU must be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_plugin.config.kd import PRECISIONS
from kd_plugin.errors import TeacherError, arg, nearest

__all__ = ["DTYPES", "cast", "choose_precision", "least_seconds"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WORTH_MEASURING = 20_000_000  # parameters: a smaller network is fast anyway
_ROWS = 256  # of the product that is measured: the tokens of a few images
# A product must be this many times as fast, or the rest of the network costs the gain: with 6, a ViT-B/32 gained 3 and
# a ResNet-50 1.8.
_WORTH_IT = 2.0


def choose_precision(wanted: str, parameters: Collection[Tensor], device: torch.device | str) -> str:
    """`fp32` or `bf16`.

    Args:
        wanted: `fp32`, `bf16`, or `auto`: bf16 on CUDA; on a CPU, for a large network, where a product with the largest
            of the parameters is much faster so (on some CPUs six times, on some it takes twice as long); else fp32.
        parameters: those that bfloat16 concerns, of any floating type, wherever they are.
        device: where they will be.

    Raises:
        TeacherError: `wanted` is none of these.
    """
    if wanted not in PRECISIONS:
        raise TeacherError(f"{arg('precision', wanted)} is unknown{nearest(wanted, PRECISIONS)}")
    if wanted != "auto":
        return wanted
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    large = sum(parameter.numel() for parameter in parameters) >= _WORTH_MEASURING
    faster = kind == "cpu" and large and _gain(max(parameters, key=Tensor.numel)) >= _WORTH_IT
    return "bf16" if faster else "fp32"


def cast(parameters: Iterable[nn.Parameter], precision: str) -> None:
    """Convert parameters to `fp32` or `bf16`, in place."""
    for parameter in parameters:
        parameter.data = parameter.data.to(DTYPES[precision])


@torch.no_grad()
def _gain(parameter: Tensor) -> float:
    """How many times as fast a product with this parameter (of a convolution: as a matrix) is in bfloat16."""
    matrix = parameter.float().flatten(1)
    rows = matrix.new_ones(_ROWS, matrix.shape[1])
    short_rows, short_matrix = rows.bfloat16(), matrix.bfloat16()
    whole = least_seconds(lambda: functional.linear(rows, matrix))
    return whole / least_seconds(lambda: functional.linear(short_rows, short_matrix))


def least_seconds(work: Callable[[], object], times: int = 3) -> float:
    """The minimum over a few calls after a warm-up call; on an accelerator, `work` must wait for it."""
    work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)
