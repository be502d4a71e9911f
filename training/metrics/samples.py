"""The features of a set of images; those of real images are cached between runs."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from kd_plugin.download import cache_dir
from torch_utils.ranks import ALONE, Job, Ranks
from training.data.dataset import ImageDataset
from training.metrics.detectors import Detector
from training.metrics.frechet import Moments

__all__ = ["BATCH", "Progress", "Sample", "pixel_jobs", "real_sample"]

Progress = Callable[[str, int, int], None]  # what, images done, images in all
BATCH = 32  # images at a time: few, since a training run holds the memory; another number draws other noise
_VERSION = 1  # of what is kept: counted up when images are decoded, or features summed up, otherwise
_THREADS = min(os.cpu_count() or 1, 8)  # that decode


class Sample:
    """Features of a number of images.

    Args:
        limit: images beyond this number are passed over.
        keep: keep the features of every image and not their moments alone.

    Attributes:
        moments: mean and covariance.
    """

    def __init__(self, limit: int, keep: bool) -> None:
        self.limit, self.keep = limit, keep
        self.moments = Moments()
        self._rows: list[Tensor] = []
        self._probabilities: list[Tensor] = []

    def __len__(self) -> int:
        return self.moments.count

    def add(self, features: Tensor, probabilities: Tensor | None = None) -> None:
        """Add features [N, F] and, if needed, probabilities [N, classes]."""
        room = self.limit - len(self)
        self.moments.add(features[:room])
        if self.keep:
            self._rows.append(features[:room].cpu())
        if probabilities is not None:
            self._probabilities.append(probabilities[:room].cpu())

    @property
    def rows(self) -> Tensor:
        """[N, F], in the images' order."""
        self._rows = [torch.cat(self._rows)]
        return self._rows[0]

    @property
    def probabilities(self) -> Tensor:
        """[N, classes]."""
        return torch.cat(self._probabilities)


def real_sample(
    detector: Detector,
    dataset: ImageDataset,
    *,
    keep: bool,
    batch: int = BATCH,
    cached: bool = True,
    ranks: Ranks = ALONE,
    on_progress: Progress | None = None,
) -> Sample:
    """All images of a dataset, as they are indexed (mirrored ones included).

    What was computed is kept in the cache folder under the content of images and detector, so that nothing stale is
    ever found there.

    Raises:
        UserError: fewer than two images.
    """
    if len(dataset) < 2:
        raise UserError(f"--data: expected at least 2 images to compare with, '{dataset.name}' has {len(dataset)}")
    path = _cache_path(detector, dataset, keep)
    cached_sample = _read(path, len(dataset), keep) if cached else None
    if ranks.all(cached_sample is not None) and cached_sample is not None:  # together or not at all
        return cached_sample
    sample = Sample(len(dataset), keep)
    for features in ranks.map(pixel_jobs(dataset, batch), detector):
        sample.add(features)
        if on_progress is not None:
            on_progress("real", len(sample), len(dataset))
    if cached and ranks.is_main:
        _write(path, sample)
    return sample


def pixel_jobs(dataset: ImageDataset, batch: int, limit: int | None = None) -> Iterator[Job]:
    """The first `limit` images of the dataset (None: all), uint8 [B, 3, R, R], in their order."""
    count = len(dataset) if limit is None else min(limit, len(dataset))

    def make(first: int, last: int) -> Tensor:
        pixels, _ = dataset.gather(np.arange(first, last), _THREADS)
        return torch.from_numpy(pixels)

    for first in range(0, count, batch):
        last = min(first + batch, count)
        yield Job(last - first, functools.partial(make, first, last))


def _cache_path(detector: Detector, dataset: ImageDataset, keep: bool) -> Path:
    key = f"{_VERSION} {dataset.content_fingerprint} {dataset.resolution} {detector.sha256} {detector.name}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return cache_dir() / "features" / f"{digest}{'-rows' if keep else ''}.safetensors"


def _write(path: Path, sample: Sample) -> None:
    tensors = {name: tensor.cpu() for name, tensor in sample.moments.state_dict().items()}
    if sample.keep:
        tensors["rows"] = sample.rows
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda partial: save_file(tensors, partial))
    except (OSError, SafetensorError):
        pass  # a cache that cannot be written costs time, not the figures


def _read(path: Path, count: int, keep: bool) -> Sample | None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    sample = Sample(count, keep)
    sample.moments.load_state_dict(tensors)
    if keep:
        sample._rows = [tensors["rows"]]
    return sample
