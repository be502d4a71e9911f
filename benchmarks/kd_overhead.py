"""The cost of distillation in a training step.

    python -m benchmarks.kd_overhead --resolution=256 --batch=16 --teacher=random:ViT-B/32

D's and G's main step without a teacher, with each view, and with each term on G; then the time of each part of the
distillation and the number of operations it launches (at small sizes a GPU waits for them). The setups take turns in
one process. `random:ViT-B/32` is a network of that size with random weights: it costs the
same as the real one.
"""

from __future__ import annotations

import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.host import a_batch, session_of, wait
from benchmarks.operations import operations
from benchmarks.random_teachers import random_teacher, write_random_clip
from kd_plugin import attach, load_teacher
from kd_plugin.balance import EVERY
from kd_plugin.teachers.protocol import Teacher
from training.cli import script
from training.phases import Phase, make_phases
from training.session import Session

PROMPTS = [f"a photo of a cat, number {i}" for i in range(32)]
OF_D = {"match": 0.0, "critic": 0.0}
MATCH = {"agkd": 0.0, "cgkd": 0.0, "critic": 0.0, "match_memory": 0}
CRITIC = {"agkd": 0.0, "cgkd": 0.0, "match": 0.0}
SETUPS: dict[str, dict[str, Any]] = {
    "no teacher": {},
    "view seen": {**OF_D, "agkd": 1.0, "view": "seen"},
    "view clean": {**OF_D, "agkd": 1.0, "view": "clean"},
    "diversity": {**OF_D, "agkd": 0.0, "cgkd": 0.0, "diversity": 1.0},
    "match": {**MATCH, "match_on": "embedding", "view": "seen"},
    "match, view clean": {**MATCH, "match_on": "embedding", "view": "clean"},
    "match at stages": {**MATCH, "match_on": "stages", "view": "seen"},
    "match at stages, clean": {**MATCH, "match_on": "stages", "view": "clean"},
    "match at stages, memory": {**MATCH, "match_on": "stages", "match_memory": 128, "view": "clean"},
    "critic": {**CRITIC, "view": "seen"},
    "critic, augments": {**CRITIC, "view": "clean"},
    "critic + match": {"agkd": 0.0, "cgkd": 0.0},
    "critic + match, one look": {"agkd": 0.0, "cgkd": 0.0, "match_augment": "auto"},
    "default": {"agkd": 1.0},
}
WARM_UP = EVERY + 2  # rounds: a balance measures in each of its first steps, and then seldom
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
CHANGED = {  # by setup, the phases that it changes
    name: ("Gmain",) if not options["agkd"] else ("Dmain",) if options.keys() >= OF_D.keys() else ("Gmain", "Dmain")
    for name, options in SETUPS.items()
    if options
}


@click.command()
@click.option("--resolution", default=256, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--cbase", default=16384, show_default=True)
@click.option("--teacher", default="random:ViT-B/32", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--memory", is_flag=True, help="Instead of times: the peak memory of a run with and without, each alone")
@click.option("--peak-of", type=click.Choice(list(SETUPS)), hidden=True)
@script
def main(
    resolution: int, batch: int, cbase: int, teacher: str, rounds: int, device: str, memory: bool, peak_of: str | None
) -> None:
    if memory:
        _report_memory(teacher)
        return
    session = session_of(resolution, batch=batch, cbase=cbase, device=device, diffaugment="color,translation,cutout")
    if peak_of is not None:
        click.echo(_peak(session, teacher, peak_of))
        return
    loaded = _teacher(teacher, session.device)
    runs = {name: _phases(session, loaded, options) for name, options in SETUPS.items()}
    images = a_batch(session)
    both = torch.cat([images.real, images.real])
    parts: dict[str, Callable[[], object]] = {
        f"{phase} {name}": lambda run=run, phase=phase: run[phase].step([images])
        for name, run in runs.items()
        for phase in CHANGED.get(name, PHASES)
    }
    parts["teacher alone"] = torch.no_grad()(lambda: loaded.embed_images(both))
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + WARM_UP):
        for name, part in parts.items():
            wait(session.device)
            begun = time.perf_counter()
            part()
            wait(session.device)
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - begun)
    counts = {name: operations(part) for name, part in parts.items()}
    _report({name: statistics.median(times) for name, times in seconds.items()}, counts)


def _report(seconds: dict[str, float], counts: dict[str, int]) -> None:
    plain = [f"{phase} no teacher" for phase in ("Gmain", "Dmain", "Greg", "Dreg")]
    iteration = sum(seconds[name] / every for name, every in zip(plain, (1, 1, 4, 16), strict=True))
    click.echo(f"{'':42}{'ms':>9}{'of an iteration':>18}{'operations':>12}")
    for name, time_ in seconds.items():
        click.echo(f"{name:42}{time_ * 1000:>9.2f}{'':>18}{counts[name]:>12}")
    click.echo(f"{'iteration without KD':42}{iteration * 1000:>9.2f}{1:>18.1%}")

    def added(what: str, *terms: str) -> None:
        """The first of the terms, less the others."""
        (time_, *times), (count, *others) = ([of[term] for term in terms] for of in (seconds, counts))
        more = time_ - sum(times)
        click.echo(f"{what:42}{more * 1000:>9.2f}{more / iteration:>18.1%}{count - sum(others):>12}")

    for name, phases in CHANGED.items():
        for phase in phases:
            added(f"added to {phase} by {name}", f"{phase} {name}", f"{phase} no teacher")
    added("of it not the teacher (seen)", "Dmain view seen", "Dmain no teacher", "teacher alone")


def _report_memory(spec: str) -> None:
    """Each setup in its own process, which loads its teacher as a run does."""
    command = [sys.executable, "-m", "benchmarks.kd_overhead", *(flag for flag in sys.argv[1:] if flag != "--memory")]
    with tempfile.TemporaryDirectory() as folder:
        if spec.startswith("random:"):
            path = Path(folder) / "random.pt"
            write_random_clip(spec.removeprefix("random:"), path)
            command.append(f"--teacher=clip:{path}")
        found = {}
        for name in SETUPS:
            done = subprocess.run([*command, f"--peak-of={name}"], capture_output=True, text=True, check=True)
            peak, weights = map(float, done.stdout.split()[-2:])
            found[name] = peak
            share = f", {peak - found['no teacher']:.0f} more; the weights are {weights:.0f}" if weights else ""
            click.echo(f"{name:14}{peak:>8.0f} MB{share}")


def _peak(session: Session, spec: str, name: str) -> str:
    """Peak memory of three iterations, and the size of the teacher's weights, in MB."""
    weights = 0.0
    teacher = None
    if SETUPS[name]:
        teacher = _teacher(spec, session.device)
        weights = sum(p.numel() * p.element_size() for p in teacher.network.parameters()) / 1e6  # type: ignore[attr-defined]
    phases = _phases(session, teacher, SETUPS[name])
    for _ in range(3):
        for phase in phases.values():
            phase.step([a_batch(session)])
    if session.device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(session.device) / 1e6} {weights}"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3} {weights}"


def _teacher(spec: str, device: torch.device) -> Teacher:
    if not spec.startswith("random:"):
        return load_teacher(spec, device)
    return random_teacher(spec.removeprefix("random:"), device)


def _phases(session: Session, teacher: Teacher | None, options: dict[str, Any]) -> dict[str, Phase]:
    kd = None
    if teacher is not None and options:
        prompts = PROMPTS if teacher.vocabulary is None else list(teacher.vocabulary[: len(PROMPTS)])
        kd = attach(session.D, teacher=teacher, prompts=prompts, **options)
    context = dataclasses.replace(session.context, kd=kd)
    return {phase.name: phase for phase in make_phases(session.config, context)}


if __name__ == "__main__":
    main()
