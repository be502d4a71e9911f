"""What does a teacher cost? Time for an image, and parameters, for networks of the published sizes.

    python -m benchmarks.teachers --precision=fp32

Random weights: the time does not depend on them.
"""

from __future__ import annotations

import statistics
import time

import click
import torch

from benchmarks.host import wait
from benchmarks.random_teachers import SIZES, random_teacher
from torch_utils.device import pick_device
from training.cli import script


@click.command()
@click.option("--size", "sizes", multiple=True, help="Only these  [default: all]")
@click.option("--images", default=16, show_default=True, help="At a time")
@click.option("--resolution", default=256, show_default=True, help="Of the images, before the teacher's preprocessing")
@click.option("--precision", default="fp32", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="auto", show_default=True)
@script
def main(sizes: tuple[str, ...], images: int, resolution: int, precision: str, rounds: int, device: str) -> None:
    where = pick_device(device)
    shown = torch.rand(images, 3, resolution, resolution, device=where) * 2 - 1
    click.echo(f"{'size':34}{'E':>6}{'image tower, M':>16}{'ms an image':>14}")
    for size in sizes or SIZES:
        teacher = random_teacher(size, where, precision)
        model = teacher.network  # type: ignore[attr-defined]
        tower = getattr(model, "visual", getattr(model, "vision_model", model))
        millions = sum(parameter.numel() for parameter in tower.parameters()) / 1e6
        taken = []
        with torch.no_grad():
            for turn in range(rounds + 1):
                wait(where)
                begun = time.perf_counter()
                teacher.embed_images(shown)
                wait(where)
                if turn:
                    taken.append((time.perf_counter() - begun) / images)
        click.echo(f"{size:34}{teacher.embed_dim:>6}{millions:>16.1f}{statistics.median(taken) * 1000:>14.2f}")


if __name__ == "__main__":
    main()
