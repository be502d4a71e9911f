"""Errors about inputs of the wrong shape."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_labels", "check_shape"]


def check_shape(what: str, x: Tensor, expected: tuple[int, ...]) -> None:
    """Raise a ValueError unless `x` has shape [N, *expected] for some N."""
    if x.shape[1:] != expected:
        sizes = ", ".join(["N", *map(str, expected)])
        raise ValueError(f"{what} has shape {list(x.shape)}; expected [{sizes}].")


def check_labels(c: Tensor | None, c_dim: int, batch: int | None = None) -> Tensor | None:
    """The labels as float32 [N, c_dim], or None for a network without labels.

    Raises:
        ValueError: labels are missing, of the wrong width, or differ from the samples in number.
    """
    if c_dim == 0:
        if c is not None and c.numel() > 0:
            raise ValueError(f"labels of shape {list(c.shape)} were given to a network without labels; expected None.")
        return None
    if c is None:
        raise ValueError(f"no labels were given to a conditional network; expected [N, {c_dim}], one-hot for classes.")
    check_shape("the label c", c, (c_dim,))
    if batch is not None and c.shape[0] != batch:
        raise ValueError(f"{c.shape[0]} labels for {batch} samples; expected one each.")
    return c.to(torch.float32)
