"""Detectors: what they return, and what a user is told about a file that is none."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dnnlib.errors import UserError
from kd_plugin.teachers import load_teacher
from training.metrics import detectors, load_detector


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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served where the official network is fetched from; an empty cache."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(detectors.OFFICIAL, "inception", f"http://127.0.0.1:{server.server_address[1]}/official.pt")
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("kd_plugin.download._PAUSES_SEC", ())
    yield folder
    server.shutdown()
    server.server_close()


def test_the_official_network_is_fetched_once_and_its_hash_kept(site: Path, detector_path: Path) -> None:
    (site / "official.pt").write_bytes(detector_path.read_bytes())
    first = load_detector("inception")
    (site / "official.pt").unlink()
    again = load_detector("inception")
    assert (first.name, first.width, first.sha256) == ("inception", 12, again.sha256)
    kept = site.parent / "cache" / "official.pt"
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"--detector=inception: .* is damaged or another file"):
        load_detector("inception")


def test_a_page_in_place_of_the_network(site: Path) -> None:
    (site / "official.pt").write_text("<html>log in first</html>")
    with pytest.raises(
        UserError, match=r"it sent another file: no TorchScript.* or give another network with"
    ) as error:
        load_detector("inception")
    assert "\n" not in str(error.value)
    assert not (site.parent / "cache" / "official.pt").exists()


def test_a_teacher_is_a_detector(detector_path: Path) -> None:
    detector = load_detector("demo")
    assert detector.teacher is not None
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    teacher = load_teacher("demo")
    torch.testing.assert_close(detector(pixels), teacher.embed_images(pixels.float() / 127.5 - 1))
    assert detector.sha256 == teacher.fingerprint
    with pytest.raises(UserError, match="'demo' gives none"):
        detector.probabilities(pixels)
    with pytest.raises(UserError, match=r"--detector=clip:/nowhere\.pt"):
        load_detector("clip:/nowhere.pt")


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
