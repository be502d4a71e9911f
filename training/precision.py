"""In which number format the high resolutions of the networks compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from kd_plugin.teachers.precision import least_seconds
from training.networks import Discriminator
from training.networks.layers import block_dtype, block_resolutions

__all__ = ["allow_tf32", "choose_precision", "set_precision", "unchanged_torch"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_WORTH_MEASURING = 2_000_000  # parameters of D: below, the measurement costs more than it could save


def choose_precision(wanted: str, D: Discriminator, device: torch.device) -> str:
    """The number type for `--precision` on `device`: `fp32`, `fp16` or `bf16`.

    `auto` is fp16 on CUDA, as in the official code; on a CPU whichever of fp32 and bf16 takes less time for the first
    block of a large D (some CPUs compute bfloat16 three times as fast, some at half the speed); else fp32.

    Raises:
        UserError: a format that the device does not compute in.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return "fp16"
        large = sum(parameter.numel() for parameter in D.parameters()) >= _WORTH_MEASURING
        if device.type != "cpu" or not large or not _low_blocks(D):
            return "fp32"
        return min(("fp32", "bf16"), key=lambda precision: _seconds(D, precision))
    if wanted == "fp16" and device.type != "cuda":
        raise UserError(f"--precision=fp16 is for CUDA; the device is {device.type}: give auto, fp32 or bf16")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("--precision=bf16: this GPU does not compute in bfloat16; give fp16 or fp32")
    return wanted


def set_precision(network: nn.Module, precision: str) -> None:
    """For the blocks that --num-fp16-res leaves to a low precision; the others are always in float32."""
    for block in _low_blocks(network):
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


def _low_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of the `num_fp16_res` highest resolutions, whatever they compute in now."""
    kwargs: Any = network.init_kwargs
    side, count = kwargs["img_resolution"], kwargs["num_fp16_res"]
    low = {f"b{r}" for r in block_resolutions(side) if block_dtype(r, side, count) == torch.float16}
    return [m for name, m in network.named_modules() if name.rpartition(".")[2] in low and hasattr(m, "dtype")]


def _seconds(D: Discriminator, precision: str) -> float:
    """The least of a few passes of D's first block, forward and back, after one to warm up."""
    side = D.img_resolution
    block: Any = D.get_submodule(f"b{side}")
    before = block.dtype
    images = torch.zeros([2, D.img_channels, side, side], device=next(D.parameters()).device)

    def forward_and_back() -> None:
        features, _ = block(None, images.requires_grad_(True), False)
        features.float().sum().backward()

    try:
        block.dtype = _DTYPES[precision]
        return least_seconds(forward_and_back)
    finally:
        block.dtype = before
