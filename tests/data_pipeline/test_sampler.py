"""The order of the training images: fair, shared between processes, and resumable from a number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.errors import UserError
from training.data import sampler
from training.data.dataset import ImageDataset
from training.data.sampler import Batch, InfiniteSampler, make_loader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images; every pixel of image k is k."""
    for k in range(10):
        Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(tmp_path / f"{k}.png")
    return tmp_path


def take(items: Iterator[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(items, count))


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    order = np.array(list(itertools.islice(InfiniteSampler(50, seed=1), 150))).reshape(3, 50)
    for epoch in order:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(epoch) for epoch in order}) == 3
    other = list(itertools.islice(InfiniteSampler(50, seed=2), 50))
    assert other != list(order[0])


def test_first_indices_are_uniform_over_seeds() -> None:
    """Chi-square over 10 values and 2000 seeds: 9 degrees of freedom, 99.9% quantile 27.9."""
    first = [int(InfiniteSampler(10, seed).at(np.array([0]))[0]) for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


@pytest.mark.parametrize("start", [0, 1, 7, 10, 33])
def test_a_start_inside_the_sequence_continues_it(start: int) -> None:
    whole = list(itertools.islice(InfiniteSampler(10, seed=5), 60))
    assert list(itertools.islice(InfiniteSampler(10, seed=5, start=start), 20)) == whole[start : start + 20]


def test_batches_are_the_sequence_cut_up_across_epochs() -> None:
    whole = list(itertools.islice(InfiniteSampler(10, seed=5), 28))
    batches = list(itertools.islice(InfiniteSampler(10, seed=5).batches(7), 4))
    assert np.concatenate(batches).tolist() == whole
    wide = next(InfiniteSampler(10, seed=5).batches(28))  # more than two epochs in one batch
    assert wide.tolist() == whole


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_one_sequence(world: int) -> None:
    whole = list(itertools.islice(InfiniteSampler(10, seed=5, start=6), 24))
    parts = [InfiniteSampler(10, seed=5, start=6, rank=rank, world=world) for rank in range(world)]
    single = [list(itertools.islice(part, 24 // world)) for part in parts]
    assert [index for group in zip(*single, strict=True) for index in group] == whole
    for step in range(2):
        joint = np.stack([list(itertools.islice(part.batches(12), 2))[step] for part in parts], axis=1)
        assert joint.reshape(-1).tolist() == whole[12 * step : 12 * (step + 1)]


@pytest.mark.parametrize("limit", [1 << 20, 0], ids=["in memory", "in this process"])
def test_loader_shows_the_images_of_the_order(folder: Path, limit: int) -> None:
    dataset = ImageDataset(folder, mirror=True, memory_limit=limit)
    loader = make_loader(dataset, batch=8, seed=3, start_nimg=16, workers=0)
    expected = InfiniteSampler(20, seed=3, start=16).batches(8)
    for batch, indices in zip(take(loader, 6), expected, strict=False):
        assert batch.indices.tolist() == indices.tolist()
        assert (batch.pixels.dtype, batch.pixels.shape, batch.labels.shape) == (torch.uint8, (8, 3, 4, 4), (8, 0))
        assert batch.pixels[:, 0, 0, 0].tolist() == [index % 10 for index in indices]


def test_worker_processes_change_nothing(folder: Path) -> None:
    here = make_loader(ImageDataset(folder), batch=4, seed=3, start_nimg=8)
    there = make_loader(ImageDataset(folder, memory_limit=0), batch=4, seed=3, start_nimg=8, workers=2)
    for a, b in zip(take(here, 7), take(there, 7), strict=True):
        assert isinstance(b, Batch)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_little_shared_memory_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have 64 MB of /dev/shm: the arrays go through pipes."""
    small = SimpleNamespace(free=64 << 20)
    monkeypatch.setattr(sampler.shutil, "disk_usage", lambda path: small)
    assert sampler._room_for(1 << 20)
    assert not sampler._room_for(60 << 20)
    small.free = 0
    here = make_loader(ImageDataset(folder), batch=4, seed=3)
    there = make_loader(ImageDataset(folder, memory_limit=0), batch=4, seed=3, workers=2)
    for a, b in zip(take(here, 7), take(there, 7), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_ranks_of_the_loader_make_up_the_whole_batch(folder: Path) -> None:
    dataset = ImageDataset(folder)
    whole = next(make_loader(dataset, batch=6, seed=1, start_nimg=12))
    ranks = [next(make_loader(dataset, batch=6, seed=1, start_nimg=12, rank=rank, world=2)) for rank in range(2)]
    assert torch.stack([part.indices for part in ranks], 1).flatten().tolist() == whole.indices.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_also_from_a_worker(folder: Path, workers: int) -> None:
    dataset = ImageDataset(folder, memory_limit=0)
    (folder / "4.png").write_bytes(b"broken meanwhile")
    with pytest.raises(UserError) as caught:
        take(make_loader(dataset, batch=5, workers=workers), 2)
    assert str(caught.value) == f"--data: cannot read image '4.png' in '{folder}' (damaged, or not an image)"


def test_a_set_in_memory_is_checked_before_the_first_batch(folder: Path) -> None:
    dataset = ImageDataset(folder)
    (folder / "4.png").write_bytes(b"broken meanwhile")
    with pytest.raises(UserError, match=r"cannot read image '4\.png'"):
        make_loader(dataset, batch=5)


def test_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="length: expected at least 1 image, got 0"):
        InfiniteSampler(0)
    with pytest.raises(ValueError, match="rank: expected 0 <= rank < world = 2, got 2"):
        InfiniteSampler(5, rank=2, world=2)
    with pytest.raises(ValueError, match="batch: 5 images cannot be shared evenly by 2 processes"):
        next(InfiniteSampler(5, world=2).batches(5))
