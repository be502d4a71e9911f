"""The CUDA kernels: compiled once per machine by ninja, at the first call that can use them."""

from __future__ import annotations

import functools
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ["KernelsUnavailable", "kernels", "kernels_or_none"]

SOURCES = Path(__file__).parent / "csrc"


class KernelsUnavailable(RuntimeError):
    """Why there are no kernels, in one line."""


@functools.cache
def _outcome() -> Any:
    """The extension module, or the KernelsUnavailable that stands for it. Tried once a process: failing takes time."""
    try:
        return _build()
    except KernelsUnavailable as error:
        return error


def kernels() -> Any:
    """The extension module. The first call on a machine compiles it (about a minute), later ones find it in
    torch's cache of extensions (TORCH_EXTENSIONS_DIR).

    Raises:
        KernelsUnavailable: no CUDA, no compiler, or it fails.
    """
    outcome = _outcome()
    if isinstance(outcome, KernelsUnavailable):
        raise outcome
    return outcome


@functools.cache
def kernels_or_none() -> Any:
    """The same, but None and one warning if they are unavailable: plain torch is used, more slowly."""
    try:
        return kernels()
    except KernelsUnavailable as error:
        warnings.warn(f"CUDA kernels: {error}; plain torch is used instead, more slowly", stacklevel=2)
        return None


def _build() -> Any:
    if not torch.cuda.is_available():
        raise KernelsUnavailable("torch finds no CUDA device")
    from torch.utils import cpp_extension

    missing = [tool for tool in ("ninja", "c++") if shutil.which(tool) is None]
    if cpp_extension.CUDA_HOME is None:
        missing.append("nvcc (a CUDA toolkit; CUDA_HOME says where)")
    if missing:
        raise KernelsUnavailable(f"not built, this machine lacks {', '.join(missing)}")
    try:
        return cpp_extension.load(
            name="kd_ops",
            sources=[str(SOURCES / name) for name in ("binding.cpp", "bias_act.cu", "upfirdn2d.cu")],
            extra_cuda_cflags=["-O3"],
            extra_cflags=["-O2"],
        )
    except (RuntimeError, OSError, ImportError) as error:
        lines = [line for line in str(error).splitlines() if "error" in line.lower()] or str(error).splitlines()
        raise KernelsUnavailable(f"not built: {lines[0].strip()[:300]}") from error
