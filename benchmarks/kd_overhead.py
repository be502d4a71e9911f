"""What does distillation cost a training step?

    python -m benchmarks.kd_overhead --resolution=256 --batch=16 --teacher=random:ViT-B/32

D's and G's main step without a teacher, with each view, and with the diversity term on G; then what each part of the
distillation takes. The runs take turns, in one process. `random:ViT-B/32` is a network of that size with random
weights: it costs what the real one costs, and knows nothing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor

from dnnlib.cli import user_errors
from kd_plugin import attach, load_teacher
from kd_plugin.teachers.base import Teacher
from torch_utils.device import pick_device
from torch_utils.gradients import NanWatch
from torch_utils.memory import keep_freed_memory
from torch_utils.ranks import ALONE
from torch_utils.stats import Stats, Stopwatch
from training.augment import DiffAugment
from training.config import resolve
from training.networks import Discriminator, Generator
from training.phases import Batch, Phase, Players, make_phases
from training.precision import choose_precision, set_precision

PROMPTS = [f"a photo of a cat, number {i}" for i in range(32)]
RANDOM = {
    "ViT-B/32": (512, 224, 12, 768, 32),
    "ViT-B/16": (512, 224, 12, 768, 16),
    "ViT-L/14": (768, 224, 24, 1024, 14),
}


@click.command()
@click.option("--resolution", default=256, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--cbase", default=16384, show_default=True)
@click.option("--teacher", default="random:ViT-B/32", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--device", default="auto", show_default=True)
@user_errors
def main(resolution: int, batch: int, cbase: int, teacher: str, rounds: int, device: str) -> None:
    where = pick_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    loaded = _teacher(teacher, where)
    setups = {
        "no teacher": {},
        "view seen": {"agkd": 1.0, "cgkd": 1.0},
        "view clean": {"agkd": 1.0, "cgkd": 1.0, "view": "clean"},
        "diversity": {"agkd": 0.0, "cgkd": 0.0, "diversity": 1.0},
    }
    runs = {name: _phases(resolution, batch, cbase, where, loaded, options) for name, options in setups.items()}
    images = torch.rand([batch, 3, resolution, resolution], device=where) * 2 - 1
    both = torch.cat([images, images])
    parts: dict[str, Callable[[], object]] = {
        f"{phase} {name}": lambda run=run, phase=phase: run[phase].step([Batch(images, images.new_zeros(batch, 0))])
        for name, run in runs.items()
        for phase in ("Gmain", "Greg", "Dmain", "Dreg")
        if name == "no teacher" or phase == ("Gmain" if name == "diversity" else "Dmain")
    }
    parts["teacher alone"] = torch.no_grad()(lambda: loaded.embed_images(both))
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 2):
        for name, part in parts.items():
            _wait(where)
            begun = time.perf_counter()
            part()
            _wait(where)
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
    embed, side, layers, width, patch = RANDOM[spec.removeprefix("random:")]
    from kd_plugin.teachers.clip_package import (
        _load,
    )  # OpenAI's own class, which nothing else needs to build from numbers

    text = embed  # OpenAI's text transformers are as wide as the embedding
    model = _load("model").CLIP(embed, side, layers, width, patch, 77, 49408, text, text // 64, 12)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pt"
        torch.save(dict(model.float().state_dict()), path)
        return load_teacher(f"clip:{path}", device)


def _phases(
    side: int, batch: int, cbase: int, device: torch.device, teacher: Teacher, options: dict[str, object]
) -> dict[str, Phase]:
    torch.manual_seed(0)
    given = {"cfg": "stylegan2", "aug": "noaug", "map_depth": 2, "batch": batch, "cbase": cbase, "lr": 1e-6}
    config = resolve(given, {"teacher": "none"}, side)
    shared = {
        "c_dim": 0,
        "img_resolution": side,
        "img_channels": 3,
        "channel_base": cbase,
        "num_fp16_res": 4,
        "conv_clamp": 256,
    }
    G = Generator(z_dim=512, w_dim=512, mapping_layers=2, **shared).to(device).requires_grad_(False)
    D = Discriminator(**shared).to(device).requires_grad_(False)
    if device.type == "cpu":
        G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    precision = choose_precision("auto", D, device)
    for network in (G, D):
        set_precision(network, precision)
    kd = attach(D, teacher=teacher, prompts=PROMPTS, **options) if options else None

    def no_labels(count: int) -> Tensor:
        return torch.zeros([count, 0], device=device)

    players = Players(
        G, D, DiffAugment("color,translation,cutout"), no_labels, kd, None, None, Stats(), Stopwatch(device),
        NanWatch(device), ALONE, 0.9, device,
    )  # fmt: skip
    return {phase.name: phase for phase in make_phases(config, players)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
