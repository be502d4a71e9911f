"""Choosing the device of `--device`."""

from __future__ import annotations

import torch

from dnnlib.errors import UserError

__all__ = ["pick_device"]


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA if available, else Apple's MPS, else the CPU.

    Raises:
        UserError: a device torch does not know or that this machine lacks.
    """
    if name == "auto":
        available = (kind for kind in ("cuda", "mps") if _is_available(kind))
        return torch.device(next(available, "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device: '{name}' is not a device; give auto, cpu, cuda, cuda:N or mps") from None
    if not _is_available(device.type):
        raise UserError(f"--device: '{name}' was requested, but torch finds no such device here; use --device=cpu")
    return torch.device("cpu") if device.type == "cpu" else device  # libraries do not know cpu:0


def _is_available(kind: str) -> bool:
    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(kind, False)
