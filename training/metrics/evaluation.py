"""Evaluation: all requested metrics from one pass over the real and one over the generated images."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dnnlib.errors import UserError
from torch_utils.ranks import ALONE, Job, Ranks
from torch_utils.seeding import own_randomness
from training.data.dataset import ImageDataset
from training.data.pixels import to_uint8
from training.metrics.detectors import Detector
from training.metrics.path_length import path_jobs, path_length
from training.metrics.registry import CLASSIFIER, Metric, MetricInputs, MetricValues
from training.metrics.samples import BATCH, Progress, Sample, pixel_jobs, real_sample
from training.networks import GeneratorNetwork

__all__ = ["EvaluationOptions", "Fakes", "GeneratedImages", "ImageFolder", "MetricResult", "Reals", "check", "evaluate"]


class Fakes(Protocol):
    """A source of generated images. `resize_note`: how images of another size were resized."""

    resize_note: str

    def jobs(self, count: int, batch: int) -> Iterator[Job]:
        """`count` images, uint8 [B, 3, H, W] at a time; the same ones at each call."""


class ImageGenerator(Protocol):
    """The generator's interface: G(z [N, z_dim], c [N, c_dim]) -> images [N, 3, R, R] in [-1, 1]."""

    z_dim: int
    c_dim: int
    img_resolution: int

    def __call__(self, z: Tensor, c: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Reals:
    """The real images of an evaluation.

    Attributes:
        reference: what the generated images are compared with.
        train: what the generator was trained on, for the figures about copies; None: the reference.
    """

    reference: ImageDataset
    train: ImageDataset | None = None

    @functools.cached_property
    def unseen(self) -> Tensor:
        """bool [len(reference)]: the images that are, pixel by pixel, not among `train`."""
        return torch.from_numpy(~self.reference.isin(self.train or self.reference))


@dataclass(frozen=True)
class MetricResult:
    """The values of a metric and the conditions under which they were measured."""

    metric: str
    results: Mapping[str, float]
    detector: str
    detector_sha256: str
    num_real: int
    num_fake: int
    dataset: str
    dataset_fingerprint: str
    train_dataset: str
    resolution: int
    resize: str
    mirror: bool
    seed: int

    @property
    def value(self) -> float:
        """The main value of several."""
        return next(iter(self.results.values()))

    def conditions(self) -> str:
        """'inception 6ad5f1c2, 5000 fakes and 100 reals (faces 0a1b2c3d, 64 pixels)': equal ones compare."""
        mirrored = ", mirrored too" if self.mirror else ""
        resized = "" if self.resize == "none" else f", {self.resize}"
        return (
            f"{self.detector} {self.detector_sha256[:8]}, {self.num_fake} fakes and {self.num_real} reals "
            f"({self.dataset} {self.dataset_fingerprint[:8]}, {self.resolution} pixels{resized}{mirrored})"
        )

    def to_json(self) -> dict[str, Any]:
        """One line of metric-<name>.jsonl; `metric` and `results` as official runs write them."""
        return {**vars(self), "results": dict(self.results)}


class GeneratedImages:
    """Images of a generator for random latents, with labels of random images of a dataset.

    Torch's random state is restored, so evaluating during training does not change the run.

    Args:
        G: the generator, in eval mode.
        reals: gives the labels.
        seed: of latents, labels, and what G draws inside itself (noise).
        device: where G is.

    Raises:
        UserError: G and the dataset differ in resolution or labels.
    """

    resize_note = "none"

    def __init__(self, G: ImageGenerator, reals: ImageDataset, *, seed: int, device: torch.device | str) -> None:
        if G.img_resolution != reals.resolution:
            raise UserError(
                f"--data: '{reals.name}' has images of {reals.resolution} pixels, the network makes "
                f"{G.img_resolution}; give --resolution={G.img_resolution}"
            )
        if G.c_dim != reals.label_dim:
            raise UserError(
                f"--data: '{reals.name}' has labels of width {reals.label_dim}, the network takes {G.c_dim}; "
                "give the data it was trained on"
            )
        self.G, self.seed, self.device = G, seed, torch.device(device)
        self._reals = reals

    def path_jobs(self, perceptual: Detector, count: int, batch: int) -> Iterator[Job]:
        """See `training.metrics.path_length`.

        Raises:
            UserError: the generator has no w.
        """
        if isinstance(self.G, GeneratorNetwork) and not self.G.has_w:
            raise UserError("--metrics: the path length (ppl) is measured in w, which this generator does not have")
        G, labels, device = self.G, self._draw_labels, self.device
        return path_jobs(G, perceptual, labels, count, batch=batch, seed=self.seed, device=device)

    def jobs(self, count: int, batch: int) -> Iterator[Job]:
        draws = torch.Generator().manual_seed(self.seed)
        for first in range(0, count, batch):
            size = min(batch, count - first)
            z = torch.randn([size, self.G.z_dim], generator=draws)
            c = self._draw_labels(size, draws)
            yield Job(size, functools.partial(self._make, z, c, first))

    def _draw_labels(self, count: int, draws: torch.Generator) -> Tensor:
        """Of images of the set, drawn at random: [count, c_dim]."""
        drawn = torch.randint(self._reals.used, [count], generator=draws)
        return torch.from_numpy(self._reals.labels_at(drawn.numpy()))

    def _make(self, z: Tensor, c: Tensor, first: int) -> Tensor:
        with own_randomness(self.device, self.seed, first), torch.no_grad():
            return to_uint8(self.G(z.to(self.device), c.to(self.device)))


class ImageFolder:
    """Generated images in a folder or zip."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.resize_note = dataset.resize_note

    def jobs(self, count: int, batch: int) -> Iterator[Job]:
        if count > len(self.dataset):
            raise UserError(
                f"--fakes: '{self.dataset.name}' holds {len(self.dataset)} images, --metrics needs {count}; "
                f"put the number into the name, such as kid{len(self.dataset)}_full"
            )
        return pixel_jobs(self.dataset, batch, count)


@dataclass(frozen=True)
class EvaluationOptions:
    """How to measure; the defaults suit one process.

    Attributes:
        batch: images at a time. Another batch size draws other generated images.
        seed: of KID's subsets.
        perceptual: the network of path lengths, from `load_perceptual`; only path lengths need it.
        ranks: the processes that share the work; each passes the same arguments and gets the same results.
        cached: keep the features of the real images in the cache folder, and take them from there.
        on_progress: called with "real", "fake" or "path", the images done, and the images in all.
    """

    batch: int = BATCH
    seed: int = 0
    perceptual: Detector | None = None
    ranks: Ranks = ALONE
    cached: bool = True
    on_progress: Progress | None = None


def evaluate(
    fakes: Fakes,
    reals: Reals,
    detector: Detector,
    metrics: Sequence[Metric],
    options: EvaluationOptions | None = None,
) -> list[MetricResult]:
    """Measure generated images against real ones, as these are indexed (mirrored ones included).

    Memory: two F x F float64 matrices, and 4F bytes an image for metrics that need more than the moments.

    Args:
        fakes: `GeneratedImages` or `ImageFolder`.
        reals: what they are compared with.
        detector: of the features.
        metrics: from `parse_metrics`.
        options: how to measure.

    Raises:
        UserError: too few images; a detector that does not suit a metric or returns NaN.
    """
    if not metrics:
        return []
    options = options or EvaluationOptions()
    check(metrics, reals.reference, detector, fakes, options.perceptual)
    of_images = [metric for metric in metrics if not metric.of_paths]
    of_paths = [metric for metric in metrics if metric.of_paths]
    values = _measure_images(fakes, reals, detector, of_images, options) if of_images else {}
    if of_paths:
        assert isinstance(fakes, GeneratedImages)
        values |= _measure_paths(fakes, of_paths, options)
    results = []
    for metric in metrics:
        used = options.perceptual if metric.of_paths else detector
        assert used is not None
        results.append(_result(metric, values[metric.name], used, fakes, reals, options.seed))
    return results


def _result(
    metric: Metric, values: MetricValues, detector: Detector, fakes: Fakes, reals: Reals, seed: int
) -> MetricResult:
    reference = reals.reference
    return MetricResult(
        metric=metric.name,
        results=values,
        detector=detector.name,
        detector_sha256=detector.sha256,
        num_real=len(reference),
        num_fake=metric.num_fake,
        dataset=reference.name,
        dataset_fingerprint=reference.fingerprint,
        train_dataset=(reals.train or reference).name,
        resolution=reference.resolution,
        resize=_joined(reference.resize_note, fakes.resize_note),
        mirror=reference.mirror,
        seed=seed,
    )


def _measure_images(
    fakes: Fakes, reals: Reals, detector: Detector, metrics: Sequence[Metric], options: EvaluationOptions
) -> dict[str, MetricValues]:
    sample = functools.partial(
        real_sample,
        detector,
        batch=options.batch,
        cached=options.cached,
        ranks=options.ranks,
        on_progress=options.on_progress,
    )
    real = train = sample(reals.reference, keep=any(metric.family.rows for metric in metrics))
    unseen = torch.zeros(len(real), dtype=torch.bool)
    if reals.train not in (None, reals.reference) and any(metric.family.train for metric in metrics):
        train, unseen = sample(reals.train, keep=True), reals.unseen
    inputs = {
        count: MetricInputs(real, fake, train, unseen, options.seed, detector.statistics_device)
        for count, fake in _fake_samples(fakes, detector, metrics, options).items()
    }
    return {metric.name: metric.measure(inputs[metric.num_fake]) for metric in metrics}


def _measure_paths(
    fakes: GeneratedImages, metrics: Sequence[Metric], options: EvaluationOptions
) -> dict[str, MetricValues]:
    assert options.perceptual is not None
    total = max(metric.num_fake for metric in metrics)
    parts: list[Tensor] = []
    jobs = fakes.path_jobs(options.perceptual, total, max(options.batch // 2, 1))
    for part in options.ranks.map(jobs, lambda steps: steps):
        parts.append(part.cpu())
        if options.on_progress is not None:
            options.on_progress("path", sum(map(len, parts)), total)
    steps = torch.cat(parts)
    return {metric.name: {metric.name: path_length(steps[: metric.num_fake])} for metric in metrics}


def check(
    metrics: Sequence[Metric],
    reference: ImageDataset,
    detector: Detector,
    fakes: Fakes | None = None,
    perceptual: Detector | None = None,
) -> None:
    """Check everything that can be checked before anything is computed.

    Args:
        metrics: what is wanted.
        reference: the real images.
        detector: of the features.
        fakes: None where there will be a generator.
        perceptual: None: no network of path lengths was given.

    Raises:
        UserError: too few images; a detector that does not suit.
    """
    for metric in metrics:
        if not metric.of_paths:
            metric.check(len(reference), detector)
        elif perceptual is None or not isinstance(fakes, GeneratedImages | None):
            raise UserError(
                f"--metrics: {metric.name} follows paths through a generator's latent space; measure a snapshot with "
                "evaluate.py --network=SNAPSHOT"
            )


def _fake_samples(
    fakes: Fakes, detector: Detector, metrics: Sequence[Metric], options: EvaluationOptions
) -> dict[int, Sample]:
    """For each number of fakes that a metric needs, the first ones of a single series."""
    rows = any(metric.family.rows for metric in metrics)
    classes = max((metric.num_fake for metric in metrics if metric.family.wants == CLASSIFIER), default=0)
    samples = {count: Sample(count, rows) for count in sorted({metric.num_fake for metric in metrics})}
    total, done = max(samples), 0

    def look(pixels: Tensor) -> Tensor:  # features, then probabilities: one result to exchange
        features = detector(pixels)
        return torch.cat([features, detector.probabilities(pixels)], dim=1) if classes else features

    for seen in options.ranks.map(fakes.jobs(total, options.batch), look):
        features, probabilities = seen.tensor_split([detector.width], dim=1)
        for sample in samples.values():
            if len(sample) < sample.limit:
                sample.add(features, probabilities if classes else None)
        done += len(seen)
        if options.on_progress is not None:
            options.on_progress("fake", done, total)
    return samples


def _joined(reals: str, fakes: str) -> str:
    return reals if reals == fakes else f"reals {reals}, fakes {fakes}"
