"""Random initial weights that leave the caller's random numbers as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["draws_of", "seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block whose draws on the CPU follow from `seed`; afterwards the CPU's state is what it was before.

    Unlike torch.manual_seed, it does not seed the generators of accelerators: the caller's latents come from those.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def draws_of(seed: int, process: int, step: int, device: torch.device) -> torch.Generator:
    """A generator whose draws follow from these numbers: nothing else has to be saved to repeat them."""
    mixed = hashlib.sha256(f"{seed} {process} {step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed[:7], "big"))
