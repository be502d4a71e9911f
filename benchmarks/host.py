"""The trainer set up for timing: real phases, 100 drawings enlarged to the requested size."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.worker import LEARNING_RATE
from training.config import TrainConfig
from training.data.image_sets import open_training_set
from training.phases import Batch
from training.presets import resolve
from training.session import Session

__all__ = ["a_batch", "session_of", "wait"]


def session_of(side: int, **options: Any) -> Session:
    """A run of the preset `stylegan2` with a mapping of two layers, without augmentation; `options` go over it."""
    given = {
        "data": "demo",
        "resolution": side,
        "holdout": 0,
        "cfg": "stylegan2",
        "aug": "noaug",
        "map_depth": 2,
        "lr": LEARNING_RATE,
        **options,
    }
    config: TrainConfig = resolve(given, {"teacher": "none"}, side)
    return Session.build(config, open_training_set(config.images))


def a_batch(session: Session) -> Batch:
    images = next(session.dataset.images(limit=session.config.batch, batch=session.config.batch))
    return Batch(
        images.to(session.device), torch.zeros([len(images), 0], device=session.device), torch.arange(len(images))
    )


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
