"""Films of the way between seeds: straight in w, or along the sphere in z."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dnnlib.cli import parse_seeds
from dnnlib.errors import UserError
from dnnlib.files import require_free, require_writable, write_atomic
from kd_plugin.config.ranges import Range
from kd_plugin.config.schema import option
from training.config import SIZE
from training.generation.inputs import (
    Source,
    TruncatedOptions,
    class_indices,
    class_option,
    open_source,
    psi_option,
    require_w,
    the_class,
    the_psi,
)
from training.report.image_grid import to_pixels

__all__ = ["InterpolationOptions", "film", "lerp", "slerp"]

ENDINGS = (".mp4", ".gif", ".webp")
SPACES = ("w", "z")
Between = Callable[[Tensor, Tensor, float], Tensor]
MOST_FRAMES = 100_000
MOST_GIF_FPS = 50  # its delays are hundredths of a second, and programs do not take 1 seriously


@dataclass(frozen=True, kw_only=True)
class InterpolationOptions(TruncatedOptions):
    """The flags of `interpolate`."""

    seeds: str = option(MISSING, "Seeds on the way, in this order, such as 3,17,8", metavar="SEEDS", group="Film")
    class_: str | None = class_option(
        "Class of a conditional network; one for each seed: the way leads from class to class", "NAME|INDEX,..."
    )
    trunc: str = psi_option()
    space: str | None = option(
        None,
        "Where the way is: w, on straight lines; or z, on the sphere",
        choices=SPACES,
        shown_default="w if the network has one",
    )
    frames: int = option(60, "From one seed to the next", Range(1, MOST_FRAMES), metavar="N")
    loop: bool = option(True, "Lead back to the first seed")
    fps: int = option(30, "Frames a second", Range(1, 120), metavar="N")
    zoom: int = option(1, "Each pixel becomes N x N, for small networks", Range(1, 64), metavar="N")
    batch: int = option(16, "Images per batch", SIZE, metavar="N")
    out: str = option("interpolation.mp4", "The film: .mp4, .gif or .webp", metavar="FILE", group="Files")


def film(options: InterpolationOptions) -> tuple[Path, int]:
    """The file, and its number of frames.

    Raises:
        UserError: a wrong option; a package is missing.
        OSError: the file cannot be written.
    """
    out = Path(options.out)
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out: '{options.out}' was given, its name must end with .mp4, .gif or .webp")
    seeds = parse_seeds(options.seeds, once=False)
    if len(seeds) < 2:
        raise UserError(f"--seeds: '{options.seeds}' was given; a way leads from one seed to another, give e.g. 3,17")
    if out.suffix.lower() == ".gif" and options.fps > MOST_GIF_FPS:
        raise UserError(f"--fps: {options.fps} was given, a GIF shows at most {MOST_GIF_FPS}; give less, or an .mp4")
    count = options.frames * (len(seeds) if options.loop else len(seeds) - 1)
    count += 0 if options.loop else 1  # the last seed
    if count > MOST_FRAMES:
        raise UserError(f"--frames: {count} frames in all were asked for, at most {MOST_FRAMES} are made")
    psi = the_psi(options.trunc)
    source = open_source(options)
    space = options.space or ("w" if source.G.has_w else "z")
    if space == "w":
        require_w(source.G, "--space=w")
    if out.suffix.lower() == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("--out: an .mp4 needs imageio-ffmpeg; pip install imageio-ffmpeg, or give a .gif or .webp")
    if source.G.img_channels not in (1, 3):
        raise UserError(f"interpolate: the network's images have {source.G.img_channels} channels, a film has 1 or 3")
    require_free(out, "--out")
    require_writable(out.parent, flag="--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    images = _images(options, source, seeds, psi, space)
    write_atomic(out, lambda partial: _write(partial, _frames(options, images, count), options))
    return out, count


@torch.no_grad()
def _images(
    options: InterpolationOptions, source: Source, seeds: Sequence[int], psi: float, space: str
) -> Callable[[Sequence[int]], Tensor]:
    """Makes the images [N, C, R, R] of frames, by their numbers."""
    G: Any = source.G
    z, c = source.z(seeds), _labels(options, source, seeds)
    if space == "w":
        ws = G.mapping(z, c, psi, options.trunc_cutoff, skip_w_avg_update=True)
        return lambda frames: G.synthesis(_points(ws, frames, options.frames, lerp), options.noise_mode)

    def of_z(frames: Sequence[int]) -> Tensor:
        on_way = _points(z, frames, options.frames, slerp), _points(c, frames, options.frames, lerp)
        images: Tensor = G(*on_way, psi, options.trunc_cutoff, options.noise_mode)
        return images

    return of_z


def _labels(options: InterpolationOptions, source: Source, seeds: Sequence[int]) -> Tensor:
    """[len(seeds), c_dim].

    Raises:
        UserError: neither one class nor one for each seed.
    """
    given = (options.class_ or "").split(",")
    if source.G.c_dim > 0 and len(given) > 1 and options.class_ not in source.class_names:
        found = [the_class(source.G, part.strip(), source.class_names) for part in given]
    else:
        found = class_indices(source.G, options.class_, source.class_names)
    if len(found) == 1:
        found *= len(seeds)
    if len(found) != len(seeds):
        raise UserError(f"--class: {len(found)} classes for {len(seeds)} seeds; give one, or one for each seed")
    return torch.cat([source.label(index) for index in found])


def _points(keys: Tensor, frames: Sequence[int], steps: int, between: Between) -> Tensor:
    """Where frames stand, `steps` of them from each key to the next, and from the last to the first."""
    points = []
    for frame in frames:
        key, step = divmod(frame, steps)
        points.append(between(keys[key], keys[(key + 1) % len(keys)], step / steps))
    return torch.stack(points)


def lerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """On the straight line."""
    return torch.lerp(start, end, share)


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """On the arc between two directions, the length changing evenly; straight where they (nearly) agree or oppose.

    Args:
        start, end: vectors [F].
        share: 0 = start, 1 = end.

    Source: Shoemake 1985; for latents of generators, White 2016 (arXiv 1609.04468).
    """
    lengths = start.norm(), end.norm()
    directions = start / lengths[0].clamp_min(1e-12), end / lengths[1].clamp_min(1e-12)
    angle = torch.arccos((directions[0] @ directions[1]).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return lerp(start, end, share)
    direction = torch.sin((1 - share) * angle) * directions[0] + torch.sin(share * angle) * directions[1]
    return direction / angle.sin() * torch.lerp(*lengths, share)


@torch.no_grad()
def _frames(
    options: InterpolationOptions, images: Callable[[Sequence[int]], Tensor], count: int
) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3]."""
    for start in tqdm(range(0, count, options.batch), unit="batch", disable=None):
        for pixels in to_pixels(images(range(start, min(start + options.batch, count)))):
            large = pixels.repeat(options.zoom, 0).repeat(options.zoom, 1)
            yield large.repeat(3, 2) if large.shape[2] == 1 else large


def _write(path: Path, frames: Iterator[np.ndarray], options: InterpolationOptions) -> None:
    if path.suffix.lower() == ".mp4":
        _write_mp4(path, frames, options.fps)
        return
    pictures = (Image.fromarray(frame) for frame in frames)
    rest: dict[str, Any] = {"quality": 90} if path.suffix.lower() == ".webp" else {}
    first = next(pictures)
    delay = round(100 / options.fps) * 10 if path.suffix.lower() == ".gif" else round(1000 / options.fps)
    loop: dict[str, Any] = {"loop": 0} if options.loop else {}
    first.save(path, save_all=True, append_images=pictures, duration=delay, **loop, **rest)


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: int) -> None:
    import imageio_ffmpeg

    first = next(frames)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (first.shape[1], first.shape[0]),
        fps=fps,
        macro_block_size=2,
        quality=None,
        output_params=["-crf", "17"],
        ffmpeg_log_level="error",
    )
    try:
        writer.send(None)
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
