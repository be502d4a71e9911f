"""The order in which images are shown, and their way into the training loop.

The order is a function of (seed, position) and nothing else, where the position is the number of images shown so
far, over all processes. A run that resumes after n images starts at position n, so there is no state to save.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from dnnlib.errors import UserError
from training.data.dataset import ImageDataset

__all__ = ["Batch", "InfiniteSampler", "make_loader"]


class Batch(NamedTuple):
    """One step's real images on one process."""

    pixels: torch.Tensor  # [B, 3, H, W] uint8
    labels: torch.Tensor  # [B, c_dim] float32
    indices: torch.Tensor  # [B] int64, positions in the dataset


class InfiniteSampler:
    """The endless sequence of dataset indices: epoch after epoch, each a new permutation of all images.

    Process `rank` of `world` gets every world-th index, so that all of them together show the one sequence. Epoch e's
    permutation is drawn by NumPy's default generator from (seed, e); NumPy may change that stream between versions.

    Args:
        length: number of images.
        seed: of the order.
        start: images shown so far, over all processes.
        rank, world: this process and how many there are.
    """

    def __init__(self, length: int, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> None:
        if length < 1:
            raise ValueError(f"length: expected at least 1 image, got {length}")
        if not 0 <= rank < world:
            raise ValueError(f"rank: expected 0 <= rank < world = {world}, got {rank}")
        self.length, self.seed, self.start, self.rank, self.world = length, seed, start, rank, world
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __iter__(self) -> Iterator[int]:
        position = self.start
        while True:
            yield int(self.at(np.array([position + self.rank]))[0])
            position += self.world

    def batches(self, batch: int) -> Iterator[np.ndarray]:
        """Endless [batch // world] int64 arrays: this process's share of `batch` images a step.

        Raises:
            ValueError: `batch` cannot be shared evenly.
        """
        if batch < 1 or batch % self.world:
            raise ValueError(f"batch: {batch} images cannot be shared evenly by {self.world} processes")
        share = np.arange(self.rank, batch, self.world)
        position = self.start
        while True:
            yield self.at(position + share)
            position += batch

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Dataset indices at `positions` in the sequence, which may lie in different epochs."""
        epochs, offsets = np.divmod(positions, self.length)
        indices = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[offsets[here]]
        return indices

    def _permutation(self, epoch: int) -> np.ndarray:
        """Only the last one is cached: 8 bytes per image."""
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            self._epoch = epoch
        return self._order


class _BatchReader:
    """What a loader process runs: index array -> Batch of arrays.

    A UserError comes back as a value, because DataLoader would turn it into a page of the worker's traceback.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: np.ndarray) -> Batch | UserError:
        try:
            pixels, labels = self.dataset.gather(indices)
        except UserError as error:
            return error
        return Batch(pixels, labels, indices)  # type: ignore[arg-type]


def make_loader(
    dataset: ImageDataset,
    batch: int,
    seed: int = 0,
    start_nimg: int = 0,
    workers: int = 2,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Endless batches of training images, the same for equal arguments.

    A set that fits in memory is decoded here, before the first batch, and indexed directly; a larger one is decoded by
    `workers` processes ahead of need (0: in this process).

    Args:
        dataset: the images.
        batch: images a step, over all processes; each gets batch // world of them.
        seed: of the order.
        start_nimg: images shown so far, over all processes.
        workers: loader processes of this process.
        pin_memory: page-locked batches, for asynchronous copies to a GPU.
        rank, world: this process and how many there are.

    Raises:
        UserError: an image cannot be read or has another size; it is named. From this call for a set in memory, else
            from the iterator.
    """
    order = InfiniteSampler(len(dataset), seed, start_nimg, rank, world).batches(batch)
    reader = _BatchReader(dataset)
    if dataset.fits_in_memory:
        dataset.preload()
        return _checked(_read_here(reader, order, pin_memory))
    bytes_ahead = workers * _AHEAD * (batch // world) * 3 * dataset.resolution**2
    shared = _room_for(bytes_ahead)
    loader: Any = DataLoader(
        reader,  # type: ignore[arg-type]
        sampler=order,
        batch_size=None,  # each "index" is a whole batch already
        num_workers=workers,
        collate_fn=_as_tensors if shared else _as_it_is,  # type: ignore[arg-type]
        pin_memory=pin_memory and shared,
        prefetch_factor=_AHEAD if workers else None,
    )
    return _checked(iter(loader) if shared else _pinned(map(_as_tensors, loader), pin_memory))


_AHEAD = 4  # batches that each loader process has ready
_SHARED = Path("/dev/shm")  # where tensors of loader processes lie on Linux


def _room_for(size: int) -> bool:
    """Whether loader processes may hand over tensors in shared memory. Containers often have 64 MB of it, and a write
    beyond that kills the process; arrays then go through pipes, which takes longer."""
    return not _SHARED.is_dir() or shutil.disk_usage(_SHARED).free > 2 * size


def _as_tensors(item: Batch | UserError) -> Batch | UserError:
    return item if isinstance(item, UserError) else Batch(*map(torch.as_tensor, item))


def _as_it_is(item: Batch | UserError) -> Batch | UserError:
    return item


def _read_here(reader: _BatchReader, order: Iterator[np.ndarray], pin_memory: bool) -> Iterator[Batch | UserError]:
    return _pinned((_as_tensors(reader[indices]) for indices in order), pin_memory)


def _pinned(items: Iterator[Batch | UserError], pin_memory: bool) -> Iterator[Batch | UserError]:
    for item in items:
        yield Batch(*(tensor.pin_memory() for tensor in item)) if pin_memory and isinstance(item, Batch) else item


def _checked(items: Iterator[Batch | UserError]) -> Iterator[Batch]:
    try:
        for item in items:
            if isinstance(item, UserError):
                raise item
            yield item
    finally:
        # Else the exception's traceback would keep the loader in a reference cycle. The garbage collector takes such a
        # loader apart in the wrong order, and then waits 5 s for each of its processes.
        del items
