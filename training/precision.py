"""In which number format the high resolutions of the networks compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F

from dnnlib.errors import UserError
from kd_plugin.teachers.precision import least_seconds
from training.networks import DiscriminatorNetwork, Network

__all__ = ["allow_tf32", "choose_precision", "set_precision", "unchanged_torch"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_WORTH_MEASURING = 2_000_000  # parameters of D: below, the measurement costs more than it could save


def choose_precision(wanted: str, D: DiscriminatorNetwork, device: torch.device) -> str:
    """The number type for `--precision` on `device`: `fp32`, `fp16` or `bf16`.

    `auto` is fp16 on CUDA, as in the official code; on a CPU whichever of fp32 and bf16 takes less time for a
    convolution, if D is large (some CPUs compute bfloat16 three times as fast, some ten times slower); else fp32.

    Raises:
        UserError: a format that the device does not compute in.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return "fp16"
        large = sum(parameter.numel() for parameter in D.parameters()) >= _WORTH_MEASURING
        if device.type != "cpu" or not large or not D.low_precision_blocks():
            return "fp32"
        return min(("fp32", "bf16"), key=_seconds)
    if wanted != "fp32" and not D.low_precision_blocks():
        raise UserError(f"--precision={wanted}: every block of these networks computes in fp32; give auto or fp32")
    if wanted == "fp16" and device.type != "cuda":
        raise UserError(f"--precision=fp16 is for CUDA; the device is {device.type}: give auto, fp32 or bf16")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("--precision=bf16: this GPU does not compute in bfloat16; give fp16 or fp32")
    return wanted


def set_precision(network: Network, precision: str) -> None:
    """For the blocks that --num-fp16-res leaves to a low precision; the others are always in float32."""
    for block in network.low_precision_blocks():
        block.dtype = _DTYPES[precision]  # type: ignore[assignment]


@contextmanager
def unchanged_torch() -> Iterator[None]:
    """Afterwards torch's random state, choice of TF32 and default type are as before. Inside, the type is float32, and
    gradients are computed."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before, dtype = [backend.allow_tf32 for backend in backends], torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def allow_tf32(allowed: bool) -> None:
    """Whether CUDA may round the factors of a float32 product to 10 bits, at several times the speed."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _seconds(precision: str) -> float:
    """The least of a few passes of one convolution as the networks have it, forward and back, after one to warm up.

    Not of D: where a CPU only emulates bfloat16, a large D takes minutes for a pass.
    """
    dtype = _DTYPES[precision]
    images = torch.zeros([2, 64, 64, 64], dtype=dtype).to(memory_format=torch.channels_last).requires_grad_(True)
    weight = torch.zeros([64, 64, 3, 3], dtype=dtype).to(memory_format=torch.channels_last).requires_grad_(True)
    return least_seconds(lambda: F.conv2d(images, weight, padding=1).sum().backward())
