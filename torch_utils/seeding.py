"""Randomness that a resumed run repeats: every step is seeded by what it is, not by what came before it."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["seed_step"]


def seed_step(seed: int, rank: int, nimg: int) -> None:
    """Seeds torch's generators for the step that starts after `nimg` images on process `rank`.

    Runs that differ only in options share all their draws, and a continued run needs no saved generator state.
    The idea is EDM2's.
    """
    state = np.random.SeedSequence([seed, rank, nimg]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) & (2**63 - 1))
