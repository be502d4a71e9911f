"""Choosing an operator's implementation: `impl=` and what is available."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torch_utils.ops.build import kernels, kernels_or_none

__all__ = ["kernels_for"]


def kernels_for(op: str, impl: str, x: Tensor) -> Any:
    """The CUDA kernels if they are to compute `op` of `x`, None if plain torch is.

    Args:
        op: the operator, for messages.
        impl: "cuda": the kernels; "ref": plain torch; "auto": the kernels on a GPU where they can be built.

    Raises:
        KernelsUnavailable: `impl="cuda"`, and they cannot be built here.
        ValueError: any other word, or "cuda" for a tensor elsewhere.
    """
    if impl not in ("auto", "ref", "cuda"):
        raise ValueError(f"{op}: impl='{impl}' is unknown; expected 'auto', 'ref' or 'cuda'.")
    if impl == "ref" or (impl == "auto" and not x.is_cuda):
        return None
    if impl == "auto":
        return kernels_or_none()
    module = kernels()
    if not x.is_cuda:
        raise ValueError(f"{op}: impl='cuda' was requested, but the input is on the {x.device.type}.")
    return module
