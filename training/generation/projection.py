"""Projection: the w whose image is nearest to a picture.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix D. Unlike there, the
noise inputs stay as they are: optimised, they draw what w does not, and the w found is of less use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.errors import UserError
from dnnlib.files import require_writable, write_atomic
from kd_plugin.config.ranges import ABOVE_0, SEED, Range
from kd_plugin.config.schema import option
from kd_plugin.file_kinds import what_it_is
from training.data.decoding import UNREADABLE, decode_image, reason
from training.data.pixels import to_float
from training.generation.files import save_picture
from training.generation.inputs import NetworkOptions, Source, class_option, open_source, require_w, the_class
from training.generation.likeness import load_likeness
from training.metrics.detectors import VGG
from training.report.image_grid import to_pixels

__all__ = ["Projected", "ProjectionOptions", "project_picture"]

SPACES = ("w", "w+")
STATISTICS = 10_000  # latents for the mean and spread of w
NOISE, NOISE_UNTIL = 0.05, 0.75  # of w at first, in its spreads; and the share of the steps after which there is none
WARM_UP, COOL_DOWN = 0.05, 0.25  # shares of the steps
SHOWN = 8  # images in the picture of the progress


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions(NetworkOptions):
    """The flags of `project`."""

    target: str = option(MISSING, "The picture; its centre is cut out and resized", metavar="FILE", group="Projection")
    class_: str | None = class_option()
    steps: int = option(1000, "Steps of optimisation", Range(1, 100_000), metavar="N")
    lr: float = option(0.1, "Learning rate, at its highest", ABOVE_0, metavar="X")
    space: str = option(
        "w", "One w for all layers, or w+: one for each, closer but further from the network's own", choices=SPACES
    )
    detector: str = option(
        VGG,
        "What compares images: vgg16, a TorchScript file called like it, a teacher such as clip, or pixels",
        metavar="NAME|PATH",
    )
    seed: int = option(0, "Of the noise", SEED, metavar="N")
    outdir: str = option(
        "out", "Output folder for projected_w.npz, proj.png, target.png and progress.png", metavar="DIR", group="Files"
    )


@dataclass(frozen=True)
class Projected:
    """The folder, w [1, num_ws, w_dim], and the distance of the first and the last image to the target."""

    folder: Path
    w: np.ndarray
    first: float
    last: float


@dataclass(frozen=True)
class _Search:
    """What was found: w, the distance at each step, and images on the way with their steps."""

    w: Tensor
    distances: list[float]
    shown: list[tuple[int, np.ndarray]]


def project_picture(options: ProjectionOptions) -> Projected:
    """
    Raises:
        UserError: a wrong option, a picture that cannot be read, or a network without w.
    """
    source = open_source(options)
    G: Any = source.G
    require_w(G, "project")
    label = source.label(the_class(G, options.class_, source.class_names))
    target = _target(options.target, source)
    features = load_likeness(options.detector, source.device)
    require_writable(options.outdir)
    found = _search(options, source, label, to_float(target).to(source.device), features)
    folder = Path(options.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    w = found.w.cpu().numpy()
    write_atomic(folder / "projected_w.npz", lambda partial: np.savez(partial, w=w))
    how = {
        "target": Path(options.target).name,
        "steps": options.steps,
        "space": options.space,
        "detector": options.detector,
    }
    wanted = target[0].permute(1, 2, 0).numpy()
    save_picture(wanted, folder / "target.png", how)
    save_picture(found.shown[-1][1], folder / "proj.png", how)
    _draw(folder / "progress.png", wanted, found)
    return Projected(folder, w, found.distances[0], found.distances[-1])


def _target(path: str, source: Source) -> Tensor:
    """uint8 [1, C, R, R].

    Raises:
        UserError: it cannot be read.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise FileNotFoundError("it is not a file" if file.exists() else "it does not exist")
        pixels = decode_image(file.read_bytes(), source.G.img_resolution)
    except UNREADABLE as error:
        raise UserError(f"--target: '{path}' cannot be read as a picture ({reason(error)}){what_it_is(file)}") from None
    rgb = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    if source.G.img_channels == 1:
        return rgb.float().mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).round().byte()
    if source.G.img_channels != 3:
        raise UserError(f"project: the network's images have {source.G.img_channels} channels, a picture has 3")
    return rgb


def _search(
    options: ProjectionOptions, source: Source, label: Tensor, target: Tensor, features: Callable[[Tensor], Tensor]
) -> _Search:
    G: Any = source.G
    draws = torch.Generator().manual_seed(options.seed)
    mean, spread = _statistics(source, label)
    layers = 1 if options.space == "w" else G.num_ws
    w = mean.repeat(1, layers, 1).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=options.lr)
    with torch.no_grad():
        wanted = features(target)
    distances: list[float] = []
    shown: list[tuple[int, np.ndarray]] = []
    stops = set(np.linspace(0, options.steps, SHOWN).round().astype(int).tolist())
    for step in tqdm(range(options.steps + 1), unit="step", disable=None):  # the last one only looks
        share = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _rate(share)
        noise = (
            torch.randn(w.shape, generator=draws).to(w.device) * spread * NOISE * max(0, 1 - share / NOISE_UNTIL) ** 2
        )
        last = step == options.steps
        images = G.synthesis((w if last else w + noise).expand(-1, G.num_ws, -1), options.noise_mode, True)
        distance = (features(images) - wanted).square().sum()
        distances.append(distance.item())
        if not math.isfinite(distances[-1]):
            raise UserError(f"--lr={options.lr:g}: the distance is not finite after {step} steps; give a smaller --lr")
        if step in stops:
            shown.append((step, to_pixels(images.detach())[0]))
        if not last:
            optimizer.zero_grad(set_to_none=True)
            distance.backward()
            optimizer.step()
    return _Search(w.detach().expand(-1, G.num_ws, -1), distances, shown)


@torch.no_grad()
def _statistics(source: Source, label: Tensor) -> tuple[Tensor, float]:
    """The mean w [1, 1, w_dim] of a class, and the root of its mean squared distance to that."""
    z = torch.from_numpy(np.random.RandomState(123).randn(STATISTICS, source.G.z_dim)).float()
    parts = [_w_of(source, part.to(source.device), label) for part in z.split(1000)]
    ws = torch.cat(parts)
    mean = ws.mean(0, keepdim=True)
    return mean[None], float((ws - mean).square().sum(1).mean().sqrt())


def _w_of(source: Source, z: Tensor, label: Tensor) -> Tensor:
    G: Any = source.G
    ws: Tensor = G.mapping(z, label.expand(len(z), -1), skip_w_avg_update=True)
    return ws[:, 0]


def _rate(share: float) -> float:
    """Of the highest learning rate: rises in a line, falls as a cosine."""
    falling = min(1, (1 - share) / COOL_DOWN)
    return min(1, share / WARM_UP + 1e-3) * (0.5 - 0.5 * math.cos(math.pi * falling))


def _draw(path: Path, target: np.ndarray, found: _Search) -> None:
    """The target, images on the way, and the distance over the steps."""
    from matplotlib.figure import Figure

    images = [("target", target), *((f"step {step}", image) for step, image in found.shown)]
    figure = Figure(figsize=(1.6 * (SHOWN + 1), 4.2), layout="constrained")
    rows = figure.add_gridspec(2, SHOWN + 1)
    for column, (title, image) in enumerate(images):
        axes = figure.add_subplot(rows[0, column])
        axes.imshow(
            image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest"
        )
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    axes = figure.add_subplot(rows[1, :])
    axes.plot(found.distances)
    axes.set_xlabel("step")
    axes.set_ylabel("distance to the target")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=100))
