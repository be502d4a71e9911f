"""Detectors: frozen networks that turn images into the features that metrics compare.

A detector is the official Inception (downloaded once), any TorchScript file that is called like it, or a teacher.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.download import download, sha256_of
from kd_plugin.errors import KDError, arg, first_line, nearest
from kd_plugin.file_kinds import what_it_is
from kd_plugin.teachers import TEACHERS, Teacher, load_teacher
from kd_plugin.teachers.torchscript import load_torchscript
from training.data.pixels import to_float

__all__ = [
    "INCEPTION",
    "OFFICIAL",
    "VGG",
    "Detector",
    "load_detector",
    "load_judge",
    "load_perceptual",
    "pixel_detector",
]

INCEPTION = "inception"
# The Inception-v3 of the published figures, as TorchScript, from the stylegan2-ada-pytorch project.
OFFICIAL = {
    INCEPTION: "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
}
VGG = "vgg16"
_PIXELS = 32  # side at which images are compared without a network
_OFFICIAL_VGG = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"


@dataclass(frozen=True)
class _Contract:
    """What a network must provide, and the flag that names it, for error messages."""

    flag: str
    expected: str


_DETECTOR = _Contract(
    "--detector", "expected a TorchScript network called net(uint8 [N,3,H,W], return_features=True) -> float [N,F]"
)
_LPIPS = _Contract(
    "--lpips",
    "expected a TorchScript network called net(float [N,3,H,W] in [0,255], resize_images=False, return_lpips=True) "
    "-> float [N,F]",
)


@dataclass(frozen=True)
class Detector:
    """`detector(pixels)`: uint8 [N, 3, H, W] -> float32 [N, width].

    Attributes:
        name: what `--detector` called it, a file by its name without suffix.
        sha256: of the file, or of a teacher's weights. Distances by different detectors do not compare.
        width: number of features.
        device: where the network runs.
        features, classify: the network, called for features and (None: it cannot) for class probabilities.
        teacher: whose embeddings its features are; None of other networks.
        flag: what named it, for messages.
    """

    name: str
    sha256: str
    width: int
    device: torch.device
    features: Callable[[Tensor], Tensor]
    classify: Callable[[Tensor], Tensor] | None = None
    teacher: Teacher | None = None
    flag: str = _DETECTOR.flag

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        features = self.features(pixels.to(self.device)).float().to(self.statistics_device)
        if not features.isfinite().all():
            raise UserError(f"{self.flag}: '{self.name}' returned NaN or infinity for some images; use another one")
        return features

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Class probabilities [N, classes].

        Raises:
            UserError: it is not a classifier.
        """
        try:
            if self.classify is None:
                raise TypeError("it is a teacher")
            probabilities = self.classify(pixels.to(self.device)).float().to(self.statistics_device)
            if probabilities.ndim != 2 or not torch.allclose(
                probabilities.sum(1), torch.ones_like(probabilities[:, 0]), atol=1e-3
            ):
                raise ValueError("its rows do not sum to 1")
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"--metrics: the Inception Score needs class probabilities, and '{self.name}' gives none "
                f"({first_line(error)}); give --detector={INCEPTION}"
            ) from None
        return probabilities

    @property
    def statistics_device(self) -> torch.device:
        """Where statistics are computed: in float64, which Apple's GPUs lack."""
        return torch.device("cpu") if self.device.type == "mps" else self.device


def load_detector(spec: str | os.PathLike[str], device: torch.device | str = "cpu") -> Detector:
    """Load a detector and test it on two random images, so that it fails now and not after hours.

    Args:
        spec: `inception`; a TorchScript file; or a teacher as `--kd` takes it (clip, demo, script:...).
        device: where it runs.

    Raises:
        UserError: the file is missing, not TorchScript, or does not keep to the contract; a teacher that does not load.
    """
    name, where = os.fspath(spec), torch.device(device)
    if Path(name).is_dir():
        raise UserError(f"--detector: '{name}' is a folder; {_DETECTOR.expected}{what_it_is(Path(name))}")
    try:
        if Path(name).is_file():
            return _from_file(Path(name), Path(name).stem, where)
        if name in OFFICIAL:
            return _from_file(_fetch(OFFICIAL[name], f"--detector={name}"), name, where)
        if name.partition(":")[0] in TEACHERS:
            return _from_teacher(name, where)
    except KDError as error:
        raise UserError(str(error)) from None
    close = nearest(name, [*OFFICIAL, *TEACHERS], exhaustive=False)
    raise UserError(f"--detector: '{name}' does not exist{close}; {_DETECTOR.expected}, '{INCEPTION}', or a teacher")


def load_perceptual(spec: str, device: torch.device | str = "cpu", flag: str = _LPIPS.flag) -> Detector:
    """The network of path lengths: `vgg16`, the official one, or a TorchScript file that is called like it.

    Raises:
        UserError: it cannot be found, read or called; names `flag`.
    """
    where, contract = torch.device(device), replace(_LPIPS, flag=flag)
    try:
        path = Path(spec) if Path(spec).is_file() or spec != VGG else _fetch(_OFFICIAL_VGG, f"{flag}={VGG}")
    except KDError as error:
        raise UserError(str(error)) from None
    if not path.is_file():
        raise UserError(f"{flag}: '{spec}' does not exist; {contract.expected}, or '{VGG}'")
    network = _read(path, where, contract)

    def features(images: Tensor) -> Any:
        return network(images.float(), resize_images=False, return_lpips=True)

    name = VGG if spec == VGG else path.stem
    width = _width_of(name, features, where, contract)
    return Detector(name, sha256_of(path), width, where, features, flag=flag)


def pixel_detector(device: torch.device) -> Detector:
    """Compares images without a network: their pixels, reduced to a small size."""

    def features(pixels: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(to_float(pixels), (_PIXELS, _PIXELS), mode="area").flatten(1)

    return Detector(f"pixels at {_PIXELS}x{_PIXELS}", "", 3 * _PIXELS**2, device, features)


def _from_file(path: Path, name: str, device: torch.device) -> Detector:
    network = _read(path, device, _DETECTOR)

    def features(pixels: Tensor) -> Any:
        return network(pixels, return_features=True)

    def classify(pixels: Tensor) -> Any:
        return network(pixels, no_output_bias=True)  # as the published Inception Scores were taken

    width = _width_of(name, features, device, _DETECTOR)
    return Detector(name, sha256_of(path), width, device, features, classify)


def load_judge(spec: str, device: torch.device) -> Teacher:
    """A teacher for --detector, in float32.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return load_teacher(spec, device, "fp32")
    except KDError as error:
        text = str(error).replace(arg("teacher", spec), f"--detector={spec}")
        raise UserError(text.replace("--kd=", "--detector=")) from None


def _from_teacher(spec: str, device: torch.device) -> Detector:
    teacher = load_judge(spec, device)

    def features(pixels: Tensor) -> Tensor:
        return teacher.embed_images(to_float(pixels))

    width = _width_of(spec, features, device, _DETECTOR)
    return Detector(spec, teacher.fingerprint, width, device, features, teacher=teacher)


def _read(path: Path, device: torch.device, contract: _Contract) -> Any:
    try:
        return load_torchscript(path, device).eval()
    except (RuntimeError, ValueError, EOFError) as error:
        reason = first_line(error)
        raise UserError(
            f"{contract.flag}: cannot read '{path}' ({reason}); {contract.expected}{what_it_is(path)}"
        ) from None


def _fetch(url: str, flag: str) -> Path:
    return download(
        url,
        url.rpartition("/")[2],
        problem_of=_problem_of,
        what=flag,
        instead=f"give another network with {flag.partition('=')[0]}=PATH",
    )


def _problem_of(path: Path) -> str:
    try:
        load_torchscript(path, "cpu")
    except (RuntimeError, ValueError, EOFError) as error:
        return f"no TorchScript: {first_line(error)}"
    return ""


def _width_of(name: str, features: Callable[[Tensor], Any], device: torch.device, contract: _Contract) -> int:
    """The width of the features, from a test on two random images."""
    flag = contract.flag
    noise = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            output = features(noise.to(device))
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{flag}: '{name}' cannot be called ({first_line(error)}); {contract.expected}") from None
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 2:
        got = f"[{', '.join(map(str, output.shape))}]" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{flag}: '{name}' returned {got} for two images; {contract.expected}")
    if not output.isfinite().all():
        raise UserError(f"{flag}: '{name}' returned NaN or infinity for random pixels")
    return output.shape[1]
