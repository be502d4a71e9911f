"""Random initial weights that leave the caller's random numbers as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block whose draws on the CPU follow from `seed`; afterwards the CPU's state is what it was before.

    Unlike torch.manual_seed, it does not seed the generators of accelerators: the caller's latents come from those.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
