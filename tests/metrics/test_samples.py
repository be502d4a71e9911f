"""Features of a set of images: their order, and a cache that is never stale and never in the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dnnlib.tables
from kd_plugin.download import cache_dir
from training.data.dataset import ImageDataset
from training.metrics import Detector, load_detector
from training.metrics.samples import Sample, real_sample


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def detector(detector_path: Path) -> Detector:
    return load_detector(detector_path)


@pytest.fixture
def images(images_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images_path, tmp_path / "images"))


def computed(detector: Detector, dataset: ImageDataset, keep: bool = True) -> tuple[Sample, bool]:
    """The sample, and whether it was computed (and not found)."""
    seen: list[int] = []
    sample = real_sample(detector, dataset, keep=keep, batch=20, on_progress=lambda _, done, total: seen.append(done))
    return sample, bool(seen)


@pytest.mark.parametrize("batch", [7, 50, 64])
def test_features_of_a_dataset_in_its_order(batch: int, detector: Detector, images: Path) -> None:
    dataset = ImageDataset(images, mirror=True)
    sample = real_sample(detector, dataset, keep=True, batch=batch, cached=False)
    expected = detector(torch.from_numpy(np.stack([dataset[index][0] for index in range(100)])))
    torch.testing.assert_close(sample.rows, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(sample.moments.mean, expected.double().mean(0))
    assert not cache_dir().exists()


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_computed_is_found_again(keep: bool, detector: Detector, images: Path) -> None:
    first, was_computed = computed(detector, ImageDataset(images), keep)
    again, was_computed_again = computed(detector, ImageDataset(images), keep)
    assert (was_computed, was_computed_again) == (True, False)
    assert torch.equal(again.moments.covariance, first.moments.covariance)
    assert torch.equal(again.moments.mean, first.moments.mean)
    assert len(again) == len(first) == 50
    if keep:
        assert torch.equal(again.rows, first.rows)


def test_moments_alone_do_not_serve_where_rows_are_wanted(detector: Detector, images: Path) -> None:
    computed(detector, ImageDataset(images), keep=False)
    assert computed(detector, ImageDataset(images), keep=True)[1]


@pytest.mark.parametrize("large_folder", [False, True])
def test_another_content_is_another_key(
    large_folder: bool, detector: Detector, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large_folder:  # whose fingerprint sees names and sizes only
        monkeypatch.setattr(dnnlib.tables, "HASHED_BYTES", 0)
    bitmap = images / "00.bmp"
    Image.new("RGB", (8, 8), "red").save(bitmap)
    first, _ = computed(detector, ImageDataset(images))
    assert not computed(detector, ImageDataset(images))[1]
    size = bitmap.stat().st_size
    Image.new("RGB", (8, 8), "blue").save(bitmap)
    assert bitmap.stat().st_size == size
    changed, was_computed = computed(detector, ImageDataset(images))
    assert was_computed
    assert not torch.equal(changed.rows, first.rows)
    for other in ({"mirror": True}, {"max_size": 40}, {"resolution": 16}):
        assert computed(detector, ImageDataset(images, **other))[1]


def test_another_detector_is_another_key(detector: Detector, detector_path: Path, images: Path, tmp_path: Path) -> None:
    computed(detector, ImageDataset(images))

    class Half(torch.nn.Module):
        def forward(self, pixels: torch.Tensor, return_features: bool = True) -> torch.Tensor:
            return pixels.float().mean((2, 3)) / 2

    torch.jit.script(Half()).save(str(tmp_path / detector_path.name))  # of the same name
    assert computed(load_detector(tmp_path / detector_path.name), ImageDataset(images))[1]


def test_a_damaged_or_unwritable_cache_costs_time_only(
    detector: Detector, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = computed(detector, ImageDataset(images))
    for kept in (cache_dir() / "features").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    again, was_computed = computed(detector, ImageDataset(images))
    assert was_computed
    assert torch.equal(again.rows, first.rows)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "file"))
    assert computed(detector, ImageDataset(images))[1]
