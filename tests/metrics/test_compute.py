"""From a generator and a dataset to figures, by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dnnlib.errors import UserError
from training.dataset import ImageDataset
from training.metrics import METRICS, evaluate, load_detector, pixel_source
from training.metrics.frechet import Moments, frechet_distance
from training.metrics.kernel import kernel_distance


class Noise:
    """A "generator": grey level and noise from z, a global draw as StyleGAN2's noise inputs make, label c in red."""

    z_dim, c_dim, img_resolution = 16, 0, 8

    def __init__(self, level: float = 0.0, c_dim: int = 0) -> None:
        self.level, self.c_dim = level, c_dim
        self.labels: list[Tensor] = []

    def __call__(self, z: Tensor, c: Tensor) -> Tensor:
        self.labels.append(c)
        return self.level + 0.1 * z[:, :1, None, None] + 0.2 * torch.randn(len(z), 3, 8, 8)


def test_fakes_are_what_the_generator_makes(images_path: Path) -> None:
    source = pixel_source(Noise(level=2.0), ImageDataset(images_path), seed=0, device="cpu")
    pixels = source(5)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (5, 3, 8, 8))
    assert (pixels == 255).all()  # clipped, not wrapped around
    exact = type("Exact", (Noise,), {"__call__": lambda self, z, c: torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)})
    levels = pixel_source(exact(), ImageDataset(images_path), seed=0, device="cpu")(1).flatten().int()
    assert (levels[0], levels[-1]) == (0, 255)


def test_figures_equal_the_formulas_on_all_features(detector_path: Path, images_path: Path) -> None:
    detector, dataset, G = load_detector(detector_path), ImageDataset(images_path), Noise(0.1)
    source = pixel_source(G, dataset, seed=3, device="cpu")
    shown: list[Tensor] = []

    def recording(count: int) -> Tensor:
        shown.append(source(count))
        return shown[-1]

    results = evaluate(recording, dataset, detector, ["fid5k_full", "kid5k_full"], num_fakes=90, batch=40, seed=3)
    assert [len(pixels) for pixels in shown] == [40, 40, 10]
    real = detector(torch.from_numpy(dataset.gather(np.arange(50))[0]))
    fake = detector(torch.cat(shown))
    moments = [Moments(), Moments()]
    for side, features in zip(moments, (real, fake), strict=True):
        side.add(features)
    kid = kernel_distance(real, fake, seed=3)
    assert results[0].value == pytest.approx(frechet_distance(*moments), rel=1e-6)
    assert (results[1].value, results[1].standard_error) == pytest.approx((kid.value, kid.standard_error), rel=1e-4)
    assert results[0].standard_error is None


def test_each_metric_takes_the_number_of_fakes_in_its_name(
    detector_path: Path, images_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "fid5k_full", ("fid", 30))
    monkeypatch.setitem(METRICS, "fid50k_full", ("fid", 75))
    detector, dataset = load_detector(detector_path), ImageDataset(images_path)
    both = evaluate(
        pixel_source(Noise(), dataset, seed=0, device="cpu"), dataset, detector, ["fid50k_full", "fid5k_full"], batch=20
    )
    assert [(result.metric, result.num_fake) for result in both] == [("fid50k_full", 75), ("fid5k_full", 30)]
    assert both[0].value != both[1].value


def test_repeatable_and_without_a_trace_in_torchs_random_state(detector_path: Path, images_path: Path) -> None:
    detector, dataset = load_detector(detector_path), ImageDataset(images_path)

    def measure(seed: int) -> float:
        source = pixel_source(Noise(), dataset, seed=seed, device="cpu")
        return evaluate(source, dataset, detector, ["kid5k_full"], num_fakes=50, batch=20, seed=seed)[0].value

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = measure(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert measure(0) == first
    assert measure(1) != first


def test_a_better_generator_scores_lower(detector_path: Path, images_path: Path) -> None:
    detector, dataset = load_detector(detector_path), ImageDataset(images_path)
    figures = {}
    for level in (0.0, 0.3, 0.8):
        source = pixel_source(Noise(level), dataset, seed=0, device="cpu")
        results = evaluate(source, dataset, detector, ["fid5k_full", "kid5k_full"], num_fakes=200)
        figures[level] = [result.value for result in results]
    for fid_or_kid in (0, 1):
        assert figures[0.0][fid_or_kid] < figures[0.3][fid_or_kid] < figures[0.8][fid_or_kid]


def test_labels_of_fakes_are_drawn_from_the_dataset(images_path: Path) -> None:
    labels = [[f"{k:02d}.png", int(k < 40)] for k in range(50)]
    (images_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    try:
        dataset = ImageDataset(images_path, use_labels=True)
    finally:
        (images_path / "dataset.json").unlink()
    G = Noise(c_dim=2)
    pixel_source(G, dataset, seed=0, device="cpu")(2000)
    assert float(G.labels[0][:, 1].mean()) == pytest.approx(0.8, abs=0.04)  # 4.5 standard deviations
    assert (G.labels[0].sum(1) == 1).all()


def test_a_result_says_what_it_compares_with(detector_path: Path, images_path: Path) -> None:
    detector, dataset = load_detector(detector_path), ImageDataset(images_path, mirror=True)
    source = pixel_source(Noise(), dataset, seed=7, device="cpu")
    steps: list[tuple[str, int, int]] = []
    (result,) = evaluate(
        source, dataset, detector, ["kid5k_full"], num_fakes=60, seed=7, on_progress=lambda *step: steps.append(step)
    )
    assert result.to_json() == {
        "metric": "kid5k_full",
        "results": {"kid5k_full": result.value, "kid5k_full_stderr": result.standard_error},
        "detector": "colours",
        "detector_sha256": detector.sha256,
        "num_real": 100,
        "num_fake": 60,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "resolution": 8,
        "mirror": True,
        "seed": 7,
    }
    assert steps == [("real", 64, 100), ("real", 100, 100), ("fake", 60, 60)]


def test_what_does_not_fit_is_refused(detector_path: Path, images_path: Path) -> None:
    detector, dataset = load_detector(detector_path), ImageDataset(images_path)
    wide, conditional = Noise(), Noise(c_dim=3)
    wide.img_resolution = 16
    with pytest.raises(UserError, match="has images of 8 pixels, the network makes 16; give --resolution=16"):
        pixel_source(wide, dataset, seed=0, device="cpu")
    with pytest.raises(UserError, match="has labels of width 0, the network takes 3; give the data it was trained on"):
        pixel_source(conditional, dataset, seed=0, device="cpu")
    source = pixel_source(Noise(), dataset, seed=0, device="cpu")
    with pytest.raises(UserError, match="--metrics: unknown metric 'kid5k'; nearest: 'kid5k_full'"):
        evaluate(source, dataset, detector, ["fid5k_full", "kid5k"])
    with pytest.raises(UserError, match="--num: expected at least 4 generated images, got 3"):
        evaluate(source, dataset, detector, ["fid5k_full"], num_fakes=3)
    with pytest.raises(UserError, match=r"--data: expected at least 4 images to compare with, .* has 2"):
        evaluate(source, ImageDataset(images_path, max_size=2), detector, ["fid5k_full"])
    assert evaluate(source, dataset, detector, []) == []
