"""Detectors: what they return, and what a user is told about a file that is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dnnlib.errors import UserError
from training.metrics import load_detector


class NoFlag(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().mean((2, 3))


class Maps(nn.Module):
    def forward(self, pixels: Tensor, return_features: bool = True) -> Tensor:
        return pixels.float()


class Pair(nn.Module):
    def forward(self, pixels: Tensor, return_features: bool = True) -> tuple[Tensor, Tensor]:
        return pixels, pixels


class Nan(nn.Module):
    def forward(self, pixels: Tensor, return_features: bool = True) -> Tensor:
        return pixels.float().mean((2, 3)).log() * float("nan")


def test_features_and_provenance(detector_path: Path) -> None:
    detector = load_detector(detector_path)
    assert (detector.name, detector.width) == ("colours", 12)
    assert detector.sha256 == hashlib.sha256(detector_path.read_bytes()).hexdigest()
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    features = detector(pixels)
    assert features.dtype == torch.float32
    assert float(features[1, 4]) == pytest.approx(float(pixels[1, 1, :2, :2].float().mean()) / 255)
    assert not features.requires_grad


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"--detector: 'nowhere\.pt' does not exist; expected a TorchScript network"):
        load_detector("nowhere.pt")


def test_a_file_that_is_no_torchscript(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "dict.pt")
    for name in ("text.pt", "dict.pt"):
        with pytest.raises(
            UserError, match=rf"--detector: cannot read '.*{name}' \(.+\); expected a TorchScript"
        ) as caught:
            load_detector(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NoFlag(), r"cannot be called \(.+\); expected"),
        (Maps(), r"returned \[2, 3, 64, 64\] for two images; expected"),
        (Pair(), "returned tuple for two images; expected"),
        (Nan(), "returned NaN or infinity for random pixels"),
    ],
)
def test_a_network_of_another_kind(network: nn.Module, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.jit.script(network).save(str(path))
    with pytest.raises(UserError, match=message) as caught:
        load_detector(path)
    assert "\n" not in str(caught.value)
