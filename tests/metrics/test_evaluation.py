"""From a generator and real images to figures, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dnnlib.errors import UserError
from training.data.dataset import ImageDataset
from training.metrics import (
    EvaluationOptions,
    GeneratedImages,
    ImageFolder,
    MetricResult,
    Reals,
    evaluate,
    load_detector,
    parse_metrics,
)
from training.metrics.detectors import Detector
from training.metrics.frechet import Moments, frechet_distance
from training.metrics.inception_score import inception_score
from training.metrics.kernel import kernel_distance
from training.metrics.neighbours import density_coverage, precision_recall


class Noise:
    """A "generator": grey level and noise from z, a global draw as StyleGAN2's noise inputs make, label c in red."""

    z_dim, c_dim, img_resolution = 16, 0, 8

    def __init__(self, level: float = 0.0, c_dim: int = 0) -> None:
        self.level, self.c_dim = level, c_dim
        self.labels: list[Tensor] = []

    def __call__(self, z: Tensor, c: Tensor) -> Tensor:
        self.labels.append(c)
        return self.level + 0.1 * z[:, :1, None, None] + 0.2 * torch.randn(len(z), 3, 8, 8)


def generated(dataset: ImageDataset, level: float = 0.0, seed: int = 0) -> GeneratedImages:
    return GeneratedImages(Noise(level), dataset, seed=seed, device="cpu")


def one(source: GeneratedImages | ImageFolder, count: int, batch: int = 1000) -> Tensor:
    return torch.cat([job.make() for job in source.jobs(count, batch)])


def measure(
    source: GeneratedImages | ImageFolder, dataset: ImageDataset, detector: Detector, names: str, **options: int
) -> list[MetricResult]:
    return evaluate(source, Reals(dataset), detector, parse_metrics(names), EvaluationOptions(**options))


@pytest.fixture(scope="module")
def detector(detector_path: Path) -> Detector:
    return load_detector(detector_path)


@pytest.fixture
def dataset(images_path: Path) -> ImageDataset:
    return ImageDataset(images_path)


def test_fakes_are_what_the_generator_makes(dataset: ImageDataset) -> None:
    pixels = one(generated(dataset, level=2.0), 5)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (5, 3, 8, 8))
    assert (pixels == 255).all()  # clipped, not wrapped around
    exact = type("Exact", (Noise,), {"__call__": lambda self, z, c: torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)})
    levels = one(GeneratedImages(exact(), dataset, seed=0, device="cpu"), 1).flatten().int()
    assert (levels[0], levels[-1]) == (0, 255)


def test_figures_equal_the_formulas_on_all_features(detector: Detector, dataset: ImageDataset) -> None:
    source = generated(dataset, 0.1, seed=3)
    names = "fid90_full,kid90_full,kid60_full,pr1k3_full,dc1k5_full,is90"
    results = {result.metric: result for result in measure(source, dataset, detector, names, batch=40, seed=3)}
    real = detector(torch.from_numpy(dataset.gather(np.arange(50))[0]))
    pixels = one(source, 1000, batch=40)
    fake = detector(pixels)
    moments = [Moments(), Moments()]
    for side, features in zip(moments, (real, fake[:90]), strict=True):
        side.add(features)
    assert results["fid90_full"].value == pytest.approx(frechet_distance(*moments), rel=1e-6)
    for count in (90, 60):
        kid = kernel_distance(real, fake[:count], seed=3)
        found = results[f"kid{count}_full"]
        assert found.results == pytest.approx(
            {f"kid{count}_full": kid.value, f"kid{count}_full_stderr": kid.standard_error}, rel=1e-4
        )
        assert found.num_fake == count
    precision, recall = precision_recall(real, fake, 3)
    assert results["pr1k3_full"].results == {"pr1k3_full_precision": precision, "pr1k3_full_recall": recall}
    density, coverage = density_coverage(real, fake, 5)
    assert results["dc1k5_full"].results == {"dc1k5_full_density": density, "dc1k5_full_coverage": coverage}
    mean, std = inception_score(detector.probabilities(pixels[:90]))
    assert results["is90"].results == pytest.approx({"is90_mean": mean, "is90_std": std})


def test_repeatable_and_without_a_trace_in_torchs_random_state(detector: Detector, dataset: ImageDataset) -> None:
    def value(seed: int) -> float:
        return measure(generated(dataset, seed=seed), dataset, detector, "kid50_full", batch=20, seed=seed)[0].value

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = value(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert value(0) == first
    assert value(1) != first


def test_a_better_generator_scores_lower(detector: Detector, dataset: ImageDataset) -> None:
    figures = {
        level: [
            result.value
            for result in measure(generated(dataset, level), dataset, detector, "fid200_full,kid200_full,pr1k3_full")
        ]
        for level in (0.0, 0.3, 0.8)
    }
    for fid_or_kid in (0, 1):
        assert figures[0.0][fid_or_kid] < figures[0.3][fid_or_kid] < figures[0.8][fid_or_kid]
    assert figures[0.0][2] > figures[0.8][2]  # precision


def test_labels_of_fakes_are_drawn_from_the_dataset(images_path: Path, tmp_path: Path) -> None:
    for group, names in (("many", range(40)), ("few", range(40, 50))):
        (tmp_path / group).mkdir()
        for k in names:
            (tmp_path / group / f"{k:02d}.png").write_bytes((images_path / f"{k:02d}.png").read_bytes())
    dataset = ImageDataset(tmp_path, use_labels=True)
    G = Noise(c_dim=2)
    one(GeneratedImages(G, dataset, seed=0, device="cpu"), 2000, batch=2000)
    assert float(G.labels[0][:, 1].mean()) == pytest.approx(0.8, abs=0.04)  # 4.5 standard deviations
    assert (G.labels[0].sum(1) == 1).all()


def test_a_result_says_what_it_compares_with(detector: Detector, images_path: Path) -> None:
    dataset = ImageDataset(images_path, mirror=True)
    steps: list[tuple[str, int, int]] = []
    (result,) = evaluate(
        generated(dataset, seed=7),
        Reals(dataset),
        detector,
        parse_metrics("kid60_full"),
        EvaluationOptions(batch=64, seed=7, cached=False, on_progress=lambda *step: steps.append(step)),
    )
    assert result.to_json() == {
        "metric": "kid60_full",
        "results": dict(result.results),
        "detector": "colours",
        "detector_sha256": detector.sha256,
        "num_real": 100,
        "num_fake": 60,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "train_dataset": dataset.name,
        "resolution": 8,
        "resize": "none",
        "mirror": True,
        "seed": 7,
    }
    assert list(result.results) == ["kid60_full", "kid60_full_stderr"]
    assert steps == [("real", 64, 100), ("real", 100, 100), ("fake", 60, 60)]
    for part in ("colours " + detector.sha256[:8], "60 fakes", "100 reals", dataset.name, "8 pixels", "mirrored"):
        assert part in result.conditions()


def test_a_memorising_generator_is_told_from_an_honest_one(detector: Detector, images_path: Path) -> None:
    """30 of 50 images were trained on, the other 20 calibrate."""
    train, everything = ImageDataset(images_path, max_size=30), ImageDataset(images_path)
    assert int(everything.isin(train).sum()) == 30
    metrics = parse_metrics("mem30,div30,modes30")
    copies = evaluate(ImageFolder(train), Reals(everything, train), detector, metrics)
    assert copies[0].results["mem30_auc"] == 1
    assert copies[0].results["mem30_share"] == 1
    assert copies[0].results["mem30_held_out"] == 20
    assert list(copies[2].results.values()) == pytest.approx([1, 1])
    assert copies[1].results["div30_overall"] == pytest.approx(1)
    unseen = ImageDataset(images_path, max_size=30, seed=5)
    mixed = evaluate(ImageFolder(unseen), Reals(everything, train), detector, metrics)[0].results
    expected = unseen.isin(train).mean()
    assert mixed["mem30_share"] == pytest.approx(expected, abs=0.07)
    assert 0.2 < expected < 0.9
    alone = evaluate(ImageFolder(train), Reals(train), detector, metrics)[0].results
    assert (alone["mem30_auc"], alone["mem30_held_out"]) == (1, 0)


def test_few_or_equal_images_give_finite_figures(detector: Detector, tmp_path: Path) -> None:
    for k in range(6):
        Image.new("RGB", (8, 8), (120, 90, 60)).save(tmp_path / f"{k}.png")
    dataset = ImageDataset(tmp_path)
    for source, names in (
        (generated(dataset), "fid4_full,kid4_full,pr1k3_full,dc1k5_full,is1k,mem4,modes4"),
        (ImageFolder(dataset), "fid6_full,kid6_full,mem6,modes6"),
    ):
        for result in measure(source, dataset, detector, names):
            assert all(np.isfinite(value) for value in result.results.values()), result


def test_a_figure_that_does_not_exist_is_absent(detector: Detector, dataset: ImageDataset, tmp_path: Path) -> None:
    few = evaluate(ImageFolder(dataset), Reals(dataset), detector, parse_metrics("div2"))[0].results
    assert list(few) == ["div2_overall"]  # two fakes, each its own nearest
    many = evaluate(generated(dataset), Reals(dataset), detector, parse_metrics("div500"))[0].results
    assert 0 < many["div500_within"] < many["div500_overall"]
    for k in range(6):
        Image.new("RGB", (8, 8), (120, 90, 60)).save(tmp_path / f"{k}.png")
    equal = ImageDataset(tmp_path)
    with pytest.raises(UserError, match="the training images are all equal"):
        measure(generated(equal), equal, detector, "div20")


def test_what_does_not_fit_is_refused(detector: Detector, dataset: ImageDataset, images_path: Path) -> None:
    wide, conditional = Noise(), Noise(c_dim=3)
    wide.img_resolution = 16
    with pytest.raises(UserError, match="has images of 8 pixels, the network makes 16; give --resolution=16"):
        GeneratedImages(wide, dataset, seed=0, device="cpu")
    with pytest.raises(UserError, match="has labels of width 0, the network takes 3; give the data it was trained on"):
        GeneratedImages(conditional, dataset, seed=0, device="cpu")
    source, two = generated(dataset), ImageDataset(images_path, max_size=2)
    for name, message in {
        "kid5k": r"--metrics: unknown metric 'kid5k'; nearest: 'kid5k_full'",
        "kid3_full": "--metrics: kid3_full needs at least 4 generated images, there are 3",
        "is5": "--metrics: is5 needs at least 10 generated images, there are 5",
        "cmmd9_full": "--metrics: cmmd9_full is a distance of CLIP embeddings, 'colours' gives none; give a teacher",
    }.items():
        with pytest.raises(UserError, match=message):
            measure(source, dataset, detector, name)
    with pytest.raises(UserError, match="--data: kid50_full needs at least 4 real images, there are 2"):
        measure(source, two, detector, "kid50_full")
    with pytest.raises(UserError, match="--data: pr50k3_full needs at least 4 real images, there are 2"):
        measure(source, two, detector, "pr50k3_full")
    with pytest.raises(UserError, match=r"--fakes: .* holds 50 images, --metrics needs 60; .*kid50_full"):
        measure(ImageFolder(dataset), dataset, detector, "kid60_full")
    assert measure(source, dataset, detector, "none") == []
