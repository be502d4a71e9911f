"""Generate images from a network snapshot.

\b
    python generate.py --network=runs/00000-.../network-snapshot-000300.safetensors --seeds=0-31 --trunc=0.7
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dnnlib.cli import count_seeds, parse_seeds
from dnnlib.errors import UserError
from dnnlib.files import require_writable
from kd_plugin.config.click_flags import GroupedCommand, add_flags, options_from
from kd_plugin.config.ranges import ANY, AT_LEAST_0, AT_LEAST_1
from kd_plugin.config.schema import option
from kd_plugin.errors import nearest
from torch_utils.device import pick_device
from training.checkpoint import load_snapshot
from training.cli import arguments_of, from_python, function, script, warn
from training.config import SIZE
from training.networks import GeneratorNetwork
from training.report.image_grid import save_grid, save_image, to_pixels


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this command."""

    network: str = option(MISSING, "A network-snapshot-*.safetensors", metavar="FILE", group="Images")
    seeds: str = option(MISSING, "Seeds, such as 0-31 or 1,5,7-9", metavar="SEEDS")
    trunc: float = option(1.0, "Truncation psi; 1: none; 0: all images are equal", ANY, metavar="PSI")
    trunc_cutoff: int | None = option(
        None, "Truncate only the first N layers", AT_LEAST_0, metavar="N", shown_default="all"
    )
    class_: str | None = option(
        None, "Class of a conditional network", key="class", metavar="NAME|INDEX", shown_default="none"
    )
    noise_mode: str = option("const", "Noise inputs", choices=("const", "random", "none"))
    columns: int = option(8, "Columns of the grid", AT_LEAST_1, metavar="N")
    batch: int = option(16, "Images per batch", SIZE, metavar="N")
    outdir: str = option("out", "Output folder for seed0000.png ... and grid.png", metavar="DIR")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")


@click.command(cls=GroupedCommand, help=__doc__, context_settings={"max_content_width": 120})
@add_flags(Options)
@script
def main(**flags: Any) -> None:
    made, notes = _generate(options_from(Options, flags))
    click.echo(f"{len(made.images)} images and grid.png are in {made.folder}")
    for line in notes:
        click.echo(line)


@function(lambda: arguments_of(Options))
def generate(**options: Any) -> Generated:
    """What the command does, from Python.

    Args:
        options: its flags, with _ for - (`trunc_cutoff=4`, `class_="dog"`); see `Options`.

    Returns:
        The files. What is worth a note is a Python warning.

    Raises:
        UserError: as the command; names the argument.
        RunFailed: not enough memory, or the images cannot be written.
    """
    made, notes = _generate(from_python(Options, options))
    warn(notes)
    return made


@dataclass(frozen=True)
class Generated:
    """The files that were written; images in the order of the seeds."""

    folder: Path
    images: list[Path]
    grid: Path


@torch.no_grad()
def _generate(options: Options) -> tuple[Generated, list[str]]:
    """What was written, and notes on it."""
    seeds = parse_seeds(options.seeds)
    device = pick_device(options.device)
    snapshot = load_snapshot(options.network, device)
    G = snapshot.G_ema
    names = snapshot.meta.get("class_names") or []
    index = class_index(G, options.class_, names)
    label = one_hot(G, index).to(device)
    require_writable(options.outdir)
    folder = Path(options.outdir)
    folder.mkdir(parents=True, exist_ok=True)

    how = {"psi": options.trunc, "class": None if index is None else (names[index] if names else index)}
    batches, files = [], []
    for start in range(0, len(seeds), options.batch):
        part = seeds[start : start + options.batch]
        images = G(
            latents(part, G.z_dim).to(device),
            label.expand(len(part), -1),
            truncation_psi=options.trunc,
            truncation_cutoff=options.trunc_cutoff,
            noise_mode=options.noise_mode,
        )
        for seed, pixels in zip(part, to_pixels(images), strict=True):
            files.append(folder / f"seed{seed:04d}.png")
            save_image(pixels, files[-1], {"kd_plugin": json.dumps({"seed": seed, **how})})
        batches.append(images.float().cpu())
    tiles = {"kd_plugin": json.dumps({"tiles": [{"seed": seed, **how} for seed in seeds]})}
    save_grid(torch.cat(batches), folder / "grid.png", min(options.columns, len(seeds)), tiles)
    return Generated(folder, files, folder / "grid.png"), remarks(options, folder, seeds)


def latents(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """z [len(seeds), z_dim], drawn by numpy as in the official tools: a seed gives the same z there."""
    z = np.concatenate([np.random.RandomState(seed).randn(1, z_dim) for seed in seeds])
    return torch.from_numpy(z).float()


def class_index(G: GeneratorNetwork, given: str | None, names: Sequence[str]) -> int | None:
    """The class that --class names, by its name or its index; None for an unconditional network.

    Raises:
        UserError: there is none of this name or index; none was given to a conditional network, or one to another.
    """
    if G.c_dim == 0:
        if given is not None:
            raise UserError(f"--class: {given} was given, but the network was trained without labels")
        return None
    if given in names:
        return list(names).index(given)
    if given is not None and given.isdecimal() and int(given) < G.c_dim:
        return int(given)
    known = f" ({', '.join(f'{index} {name}' for index, name in enumerate(names))})" if names else ""
    came = "nothing" if given is None else given
    close = nearest(given, names, exhaustive=False) if given else ""
    raise UserError(f"--class: {came} was given{close}; the network is conditional, give 0 to {G.c_dim - 1}{known}")


def one_hot(G: GeneratorNetwork, index: int | None) -> torch.Tensor:
    """The label [1, c_dim] of a class."""
    if index is None:
        return torch.zeros([1, 0])
    return torch.nn.functional.one_hot(torch.tensor([index]), G.c_dim).float()


def remarks(options: Options, folder: Path, seeds: Sequence[int]) -> list[str]:
    """What the user may not have meant."""
    lines = []
    if options.trunc == 0 and options.trunc_cutoff is None and len(seeds) > 1:
        lines.append("--trunc=0: every image is the average one, so all are equal; give e.g. --trunc=0.7")
    twice = count_seeds(options.seeds) - len(seeds)
    if twice:
        lines.append(f"--seeds: {twice} seeds were given more than once; each is one image")
    made = {f"seed{seed:04d}.png" for seed in seeds}
    left = sorted(path.name for path in folder.glob("seed*.png") if path.name not in made)
    if left:
        lines.append(
            f"{folder} also holds {len(left)} images of earlier calls, such as {left[0]}; evaluate.py --fakes={folder} "
            "counts them too"
        )
    return lines


if __name__ == "__main__":
    main()
