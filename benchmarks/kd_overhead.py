"""What does distillation cost a training step?

    python -m benchmarks.kd_overhead --resolution=256 --batch=16 --teacher=random:ViT-B/32

D's and G's main step without a teacher, with each view, and with the diversity term on G; then what each part of the
distillation takes. The runs take turns, in one process. `random:ViT-B/32` is a network of that size with random
weights: it costs what the real one costs, and knows nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import torch

from benchmarks.host import a_batch, session_of, wait
from benchmarks.random_teachers import random_teacher
from dnnlib.cli import user_errors
from kd_plugin import attach, load_teacher
from kd_plugin.teachers.base import Teacher
from training.phases import Phase, make_phases
from training.session import Session

PROMPTS = [f"a photo of a cat, number {i}" for i in range(32)]


@click.command()
@click.option("--resolution", default=256, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--cbase", default=16384, show_default=True)
@click.option("--teacher", default="random:ViT-B/32", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--device", default="auto", show_default=True)
@user_errors
def main(resolution: int, batch: int, cbase: int, teacher: str, rounds: int, device: str) -> None:
    session = session_of(resolution, batch=batch, cbase=cbase, device=device, diffaugment="color,translation,cutout")
    loaded = _teacher(teacher, session.device)
    setups: dict[str, dict[str, Any]] = {
        "no teacher": {},
        "view seen": {"agkd": 1.0, "cgkd": 1.0},
        "view clean": {"agkd": 1.0, "cgkd": 1.0, "view": "clean"},
        "diversity": {"agkd": 0.0, "cgkd": 0.0, "diversity": 1.0},
    }
    runs = {name: _phases(session, loaded, options) for name, options in setups.items()}
    images = a_batch(session)
    both = torch.cat([images.real, images.real])
    parts: dict[str, Callable[[], object]] = {
        f"{phase} {name}": lambda run=run, phase=phase: run[phase].step([images])
        for name, run in runs.items()
        for phase in ("Gmain", "Greg", "Dmain", "Dreg")
        if name == "no teacher" or phase == ("Gmain" if name == "diversity" else "Dmain")
    }
    parts["teacher alone"] = torch.no_grad()(lambda: loaded.embed_images(both))
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 2):
        for name, part in parts.items():
            wait(session.device)
            begun = time.perf_counter()
            part()
            wait(session.device)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - begun)
    _report({name: statistics.median(times) for name, times in seconds.items()})


def _report(seconds: dict[str, float]) -> None:
    plain = {phase: seconds[f"{phase} no teacher"] for phase in ("Gmain", "Greg", "Dmain", "Dreg")}
    iteration = plain["Gmain"] + plain["Dmain"] + plain["Greg"] / 4 + plain["Dreg"] / 16
    click.echo(f"{'':28}{'ms':>9}{'of an iteration':>18}")
    for name, time_ in seconds.items():
        click.echo(f"{name:28}{time_ * 1000:>9.2f}{'':>18}")
    click.echo(f"{'iteration without KD':28}{iteration * 1000:>9.2f}{1:>18.1%}")
    for name, phase in (("view seen", "Dmain"), ("view clean", "Dmain"), ("diversity", "Gmain")):
        more = seconds[f"{phase} {name}"] - plain[phase]
        click.echo(f"{'added by ' + name:28}{more * 1000:>9.2f}{more / iteration:>18.1%}")
    glue = seconds["Dmain view seen"] - plain["Dmain"] - seconds["teacher alone"]
    click.echo(f"{'of it not the teacher (seen)':28}{glue * 1000:>9.2f}{glue / iteration:>18.1%}")


def _teacher(spec: str, device: torch.device) -> Teacher:
    if not spec.startswith("random:"):
        return load_teacher(spec, device)
    return random_teacher(spec.removeprefix("random:"), device)


def _phases(session: Session, teacher: Teacher, options: dict[str, Any]) -> dict[str, Phase]:
    kd = attach(session.D, teacher=teacher, prompts=PROMPTS, **options) if options else None
    players = dataclasses.replace(session.players, kd=kd)
    return {phase.name: phase for phase in make_phases(session.config, players)}


if __name__ == "__main__":
    main()
