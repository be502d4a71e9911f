"""Randomness that a resumed run repeats: every step is seeded by its position, not by earlier draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["own_randomness", "seed_from", "seed_step"]


def seed_step(seed: int, rank: int, nimg: int) -> None:
    """Seeds torch's generators for the step that starts after `nimg` images on process `rank`.

    Runs that differ only in options share all their draws, and a continued run needs no saved generator state.
    The idea is EDM2's.
    """
    torch.manual_seed(seed_from(seed, rank, nimg))


def seed_from(*numbers: int) -> int:
    """A seed for torch that differs for any other numbers (each 0 or more)."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state) & (2**63 - 1)


@contextmanager
def own_randomness(device: torch.device, *numbers: int) -> Iterator[None]:
    """A block that draws by `seed_from(*numbers)` and leaves torch's generators as it found them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_from(*numbers))
        yield
