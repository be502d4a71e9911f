"""Generate images from a network snapshot.

\b
    python generate.py --network=runs/00000-.../network-snapshot-000300.safetensors --seeds=0-31 --trunc=0.7
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dnnlib.cli import parse_seeds
from dnnlib.errors import UserError
from dnnlib.files import require_writable
from torch_utils.device import pick_device
from training.checkpoint import load_snapshot
from training.cli import script
from training.networks import Generator
from training.report.image_grid import save_grid, save_image, to_pixels


@click.command(help=__doc__, context_settings={"max_content_width": 120, "show_default": True})
@click.option("--network", metavar="FILE", required=True, help="A network-snapshot-*.safetensors")
@click.option("--seeds", metavar="SEEDS", required=True, callback=parse_seeds, help="Seeds, such as 0-31 or 1,5,7-9")
@click.option("--trunc", "truncation_psi", metavar="PSI", type=float, default=1.0, help="Truncation psi; 1: none")
@click.option("--trunc-cutoff", metavar="N", type=int, default=None, help="Truncate only the first N layers")
@click.option("--class", "class_index", metavar="INDEX", type=int, default=None, help="Class of a conditional network")
@click.option("--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", help="Noise inputs")
@click.option("--columns", metavar="N", type=click.IntRange(min=1), default=8, help="Columns of the grid")
@click.option("--batch", metavar="N", type=click.IntRange(min=1), default=16, help="Images per batch")
@click.option("--outdir", metavar="DIR", default="out", help="Output folder for seed0000.png ... and grid.png")
@click.option("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:N or mps")
@script
@torch.no_grad()
def main(**flags: Any) -> None:
    options = Options(**flags)
    device = pick_device(options.device)
    snapshot = load_snapshot(options.network, device)
    G = snapshot.G_ema
    label = class_label(G, options.class_index, snapshot.meta.get("class_names")).to(device)
    require_writable(options.outdir)
    folder = Path(options.outdir)
    folder.mkdir(parents=True, exist_ok=True)

    batches = []
    for start in range(0, len(options.seeds), options.batch):
        seeds = options.seeds[start : start + options.batch]
        images = G(
            latents(seeds, G.z_dim).to(device),
            label.expand(len(seeds), -1),
            truncation_psi=options.truncation_psi,
            truncation_cutoff=options.trunc_cutoff,
            noise_mode=options.noise_mode,
        )
        for seed, pixels in zip(seeds, to_pixels(images), strict=True):
            save_image(pixels, folder / f"seed{seed:04d}.png")
        batches.append(images.float().cpu())
    save_grid(torch.cat(batches), folder / "grid.png", min(options.columns, len(options.seeds)))
    click.echo(f"{len(options.seeds)} images and grid.png are in {folder}")


@dataclass(frozen=True)
class Options:
    """The flags of this command."""

    network: str
    seeds: list[int]
    truncation_psi: float
    trunc_cutoff: int | None
    class_index: int | None
    noise_mode: str
    columns: int
    batch: int
    outdir: str
    device: str


def latents(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """z [len(seeds), z_dim], drawn by numpy as in the official tools: a seed gives the same z there."""
    z = np.concatenate([np.random.RandomState(seed).randn(1, z_dim) for seed in seeds])
    return torch.from_numpy(z).float()


def class_label(G: Generator, index: int | None, class_names: list[str] | None) -> torch.Tensor:
    """The one-hot label [1, c_dim] of a class; [1, 0] for an unconditional network."""
    if G.c_dim == 0:
        if index is not None:
            raise UserError(f"--class: {index} was given, but the network was trained without labels")
        return torch.zeros([1, 0])
    if index is None or not 0 <= index < G.c_dim:
        names = "" if not class_names else f" ({', '.join(f'{i} {n}' for i, n in enumerate(class_names))})"
        came = "nothing" if index is None else index
        raise UserError(f"--class: {came} was given; the network is conditional, give 0 to {G.c_dim - 1}{names}")
    return torch.nn.functional.one_hot(torch.tensor([index]), G.c_dim).float()


if __name__ == "__main__":
    main()
