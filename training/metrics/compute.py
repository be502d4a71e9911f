"""Which metrics there are, and how one pass over the reals and one over the fakes gives all that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.errors import nearest
from training.dataset import ImageDataset
from training.metrics.features import Detector, real_features
from training.metrics.frechet import Moments, frechet_distance
from training.metrics.kernel import kernel_distance

__all__ = ["METRICS", "MetricResult", "evaluate", "pixel_source"]

METRICS: dict[str, tuple[str, int]] = {  # name: (kind, number of fakes); _full: against all reals
    "fid5k_full": ("fid", 5_000),
    "fid50k_full": ("fid", 50_000),
    "kid5k_full": ("kid", 5_000),
    "kid50k_full": ("kid", 50_000),
}
PixelSource = Callable[[int], Tensor]  # n -> uint8 [n, 3, H, W], new images at each call


class ImageGenerator(Protocol):
    """What is asked of a generator: G(z [N, z_dim], c [N, c_dim]) -> images [N, 3, R, R] in [-1, 1]."""

    z_dim: int
    c_dim: int
    img_resolution: int

    def __call__(self, z: Tensor, c: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class MetricResult:
    """A figure and all that another figure must share to compare with it."""

    metric: str
    value: float
    standard_error: float | None
    detector: str
    detector_sha256: str
    num_real: int
    num_fake: int
    dataset: str
    dataset_fingerprint: str
    resolution: int
    mirror: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """One line of metric-<name>.jsonl; `results` as official runs write it."""
        results = {self.metric: self.value}
        if self.standard_error is not None:
            results[f"{self.metric}_stderr"] = self.standard_error
        rest = {key: value for key, value in vars(self).items() if key not in ("metric", "value", "standard_error")}
        return {"metric": self.metric, "results": results, **rest}


class _Side:
    """What the metrics need to know of the first `limit` images of one side: moments, and for KID the features."""

    def __init__(self, limit: int, keep: bool) -> None:
        self.limit, self.keep = limit, keep
        self.moments = Moments()
        self._kept: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        features = features[: self.limit - self.moments.count]
        self.moments.add(features)
        if self.keep:
            self._kept.append(features.cpu())

    @property
    def features(self) -> Tensor:
        return torch.cat(self._kept)


def pixel_source(G: ImageGenerator, dataset: ImageDataset, *, seed: int, device: torch.device | str) -> PixelSource:
    """Images of a generator for latents from a generator of `seed`, with labels of random images of the dataset.

    Args:
        G: the generator, in eval mode.
        dataset: what it is compared with.
        seed: of latents and labels.
        device: where G is.

    Raises:
        UserError: G and the dataset differ in resolution or labels.
    """
    if G.img_resolution != dataset.resolution:
        raise UserError(
            f"--data: '{dataset.name}' has images of {dataset.resolution} pixels, the network makes "
            f"{G.img_resolution}; give --resolution={G.img_resolution}"
        )
    if G.c_dim != dataset.label_dim:
        raise UserError(
            f"--data: '{dataset.name}' has labels of width {dataset.label_dim}, the network takes {G.c_dim}; "
            "give the data it was trained on"
        )
    draws, labels = torch.Generator().manual_seed(seed), dataset.label_table()

    def generate(count: int) -> Tensor:
        z = torch.randn([count, G.z_dim], generator=draws).to(device)
        c = labels[torch.randint(len(labels), [count], generator=draws)].to(device)
        images = G(z, c)
        return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)

    return generate


def evaluate(
    generate: PixelSource,
    dataset: ImageDataset,
    detector: Detector,
    metrics: Sequence[str],
    *,
    num_fakes: int | None = None,
    batch: int = 64,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[MetricResult]:
    """Measure generated images against all images of the dataset, as they are indexed (mirrored ones included).

    Memory: two F x F float64 matrices, and for KID 4F bytes an image. Torch's own random state is left as it was found,
    so that evaluating during a training run does not change the run.

    Args:
        generate: makes fakes; see `pixel_source`.
        dataset: the reals.
        detector: of the features.
        metrics: names in METRICS.
        num_fakes: in place of the numbers in the metrics' names; the results say how many there were.
        batch: images at a time. Other batches draw other fakes.
        seed: of what G draws inside itself (noise) and of KID's subsets.
        on_progress: called with "real" or "fake", images done, images in all.

    Raises:
        UserError: an unknown metric, with the nearest name; too few images.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"--metrics: unknown metric '{name}'{nearest(name, METRICS)}")
    if num_fakes is not None and num_fakes < 4:
        raise UserError(f"--num: expected at least 4 generated images, got {num_fakes}")
    if len(dataset) < 4:
        raise UserError(f"--data: expected at least 4 images to compare with, '{dataset.name}' has {len(dataset)}")
    counts = {name: num_fakes or METRICS[name][1] for name in metrics}
    keep = any(METRICS[name][0] == "kid" for name in metrics)

    def run(what: str, batches: Iterable[Tensor], limits: set[int]) -> dict[int, _Side]:
        sides = {limit: _Side(limit, keep) for limit in limits}
        total, done = max(limits, default=0), 0
        for features in batches:
            for side in sides.values():
                side.add(features)
            done += len(features)
            if on_progress is not None:
                on_progress(what, done, total)
        return sides

    real = run("real", real_features(detector, dataset, batch), {len(dataset)})[len(dataset)]
    most = max(counts.values(), default=0)
    fakes = run("fake", _fake_features(generate, detector, most, batch, seed), set(counts.values()))
    results = []
    for name in metrics:
        fake = fakes[counts[name]]
        error = None
        if METRICS[name][0] == "fid":
            value = frechet_distance(real.moments, fake.moments)
        else:
            distance = kernel_distance(real.features, fake.features, seed=seed, device=real.moments.mean.device)
            value, error = distance.value, distance.standard_error
        results.append(
            MetricResult(
                metric=name,
                value=value,
                standard_error=error,
                detector=detector.name,
                detector_sha256=detector.sha256,
                num_real=len(dataset),
                num_fake=counts[name],
                dataset=dataset.name,
                dataset_fingerprint=dataset.fingerprint,
                resolution=dataset.resolution,
                mirror=dataset.mirror,
                seed=seed,
            )
        )
    return results


def _fake_features(generate: PixelSource, detector: Detector, count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Features of `count` new images; torch's random state is put back after each batch."""
    cuda = [detector.device] if detector.device.type == "cuda" else []
    for first in range(0, count, batch):
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            torch.manual_seed(seed * 1_000_003 + first)
            pixels = generate(min(batch, count - first))
        yield detector(pixels)
