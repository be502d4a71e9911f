"""Train a StyleGAN2 on few images, guided by a frozen CLIP.

\b
    python train.py --kd=clip --data=100-shot-obama.zip     the method
    python train.py --data=100-shot-obama.zip               the same without distillation
    python train.py --kd=demo --data=demo                   no download, no GPU, some minutes
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
import dataclasses
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.errors import UserError
from dnnlib.files import make_run_dir, require_writable, write_atomic
from kd_plugin.config.click_flags import (
    TrainCommand,
    add_flags,
    grouped_option,
    import_option,
    require_in_range,
    variant_option,
)
from kd_plugin.config.kd import KDConfig, require_numbers
from kd_plugin.config.ranges import ABOVE_0
from kd_plugin.config.schema import to_dict
from kd_plugin.errors import flag
from kd_plugin.probe.run import SECONDS
from kd_plugin.teachers import split_spec
from torch_utils.device import pick_device
from torch_utils.launch import launch
from torch_utils.ranks import Ranks, joined_ranks
from training.checkpoint import load_snapshot
from training.cli import script
from training.config import TrainConfig, resolve, with_precision
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_training_set
from training.drawings import DemoSpec
from training.loop import fake_grid_path, measure_what_was_missed, run, snapshot_path
from training.probing import probe_lines
from training.report.describe import describe
from training.report.logbook import Logbook
from training.report.trackers import open_trackers, require_wandb
from training.resume import LATEST, config_json, content_of, read_config, run_to_continue, state_to_continue
from training.session import Session


@click.command(cls=TrainCommand, help=__doc__, context_settings={"max_content_width": 120})
@add_flags(TrainConfig)
@add_flags(KDConfig, prefix="kd_", flag=flag)
@variant_option
@grouped_option(
    "--kd-probe",
    group="Distillation",
    metavar="[SECONDS]",
    type=float,
    is_flag=False,
    flag_value=SECONDS,
    help="Report what the discriminator can learn from the teacher about these images, then stop; SECONDS for the "
    f"trials, {SECONDS:.0f} if omitted",
)
@import_option
@click.option("--config", "config_file", metavar="FILE", help="Repeat a run from its config.json; flags override it")
@click.option(
    "--resume",
    metavar="latest|DIR|FILE",
    help="latest: continue the newest run of this command; a run's folder: continue that run; "
    "a network-snapshot-*.safetensors: start a new run from its weights",
)
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, print config.json and stop")
@script
def main(
    config_file: str | None,
    resume: str | None,
    dry_run: bool,
    kd_variant: str | None,
    kd_probe: float | None,
    kd_import: tuple[str, ...],
    **flags: Any,
) -> None:
    if kd_probe is not None and (problem := ABOVE_0.problem(kd_probe)):
        raise UserError(f"--kd-probe: {kd_probe} seconds were given, it must be {problem}")
    given = {name: value for name, value in flags.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    host_given = {name: value for name, value in given.items() if name in fields}
    kd_given = {name.removeprefix("kd_"): value for name, value in given.items() if name not in fields}
    started_by_torchrun = "WORLD_SIZE" in os.environ
    if started_by_torchrun:
        host_given["gpus"] = world_of_torchrun(host_given.get("gpus"))
    config, dataset = configure(host_given, kd_given, config_file, kd_variant)
    if kd_probe is not None:
        for line in probe_lines(Session.build(config, dataset), kd_probe, partial(click.echo, err=True)):
            click.echo(line)
        return
    if dry_run:
        session = Session.build(config, dataset)
        click.echo(config_json(session.config, session.prompts, content_of(config, dataset)))
        return
    if config.gpus > 1 and not started_by_torchrun:
        require_gpus(config)
        sys.exit(launch([sys.executable, *sys.argv], config.gpus))
    with joined_ranks() as ranks:
        status = train(config, dataset, resume, ranks)
    sys.exit(status)


def world_of_torchrun(asked: int | None) -> int:
    """
    Raises:
        UserError: --gpus asks for another number of processes than there are.
    """
    world = int(os.environ["WORLD_SIZE"])
    if asked not in (None, world):
        raise UserError(f"--gpus={asked}: {world} processes were started already (torchrun); leave --gpus out")
    return world


def require_gpus(config: TrainConfig) -> None:
    """
    Raises:
        UserError: there are fewer than one for each process. On a CPU, processes share the cores.
    """
    wanted = pick_device(config.device)
    if wanted.type == "cuda" and config.gpus > torch.cuda.device_count():
        raise UserError(
            f"--gpus={config.gpus}: this machine has {torch.cuda.device_count()}; give that, or --device=cpu to share "
            "the CPU's cores"
        )


def configure(
    given: dict[str, Any],
    kd_given: dict[str, Any],
    config_file: str | None = None,
    variant: str | None = None,
) -> tuple[TrainConfig, ImageDataset]:
    """Open the images and resolve every option; a preset may depend on the images' size."""
    saved = read_config(config_file).options if config_file is not None else None
    require_in_range(TrainConfig, given)  # before images are opened
    require_numbers(kd_given)
    names = {field.name for field in dataclasses.fields(ImageOptions)}
    images = {
        field.name: given.get(field.name, (saved or {}).get(field.name, field.default))
        for field in dataclasses.fields(TrainConfig)
        if field.name in names
    }
    dataset = open_training_set(ImageOptions(**images))
    return resolve(given, kd_given, dataset.resolution, saved, variant), dataset


def train(config: TrainConfig, dataset: ImageDataset, resume: str | None, ranks: Ranks) -> int:
    """Build the run, restore its state if it continues one, and train; everything is checked before writing."""
    name = run_name(config)
    ranks.from_first(lambda: require_writable(config.outdir))
    require_wandb(config.wandb)
    content = ranks.from_first(lambda: content_of(config, dataset))
    run_dir = ranks.from_first(lambda: run_to_continue(config, content, name, resume))
    taken: list[str] = []
    state = None if run_dir is None else state_to_continue(config, content, run_dir)
    if state is not None:
        saved = state["config"]  # `auto` may choose differently today: the run keeps its choice
        networks = saved["precision"] if config.precision == "auto" else config.precision
        config = with_precision(config, networks, saved["kd"]["precision"])
    session = Session.build(config, dataset, ranks)
    config = session.config
    if state is not None:
        session.load_state_dict(state)
    elif resume not in (None, LATEST):
        snapshot = load_snapshot(resume, roles=("G", "D", "G_ema"), flag="--resume")
        taken = session.start_from(snapshot)
    run_dir = run_dir or ranks.from_first(lambda: make_run_dir(Path(config.outdir), name))
    if ranks.is_main:
        write_atomic(run_dir / "config.json", config_json(config, session.prompts, content))

    with Logbook(run_dir if ranks.is_main else None, round(config.kimg * 1000), session.nimg) as log:
        if ranks.is_main:
            log.follow(open_trackers(run_dir, to_dict(config), session.nimg, log.write))
        log.write(f"Run folder:  {run_dir}")
        for line in describe(session):
            log.write(line)
        if resume == LATEST and session.nimg == 0:
            log.write(f"Resume:      no earlier run called '{name}' in '{config.outdir}'; this is a new one")
        elif session.nimg > 0:
            log.write(f"Resume:      at {session.nimg / 1000:.1f} kimg")
            if (before := state["config"]["gpus"]) != config.gpus:
                log.write(
                    f"             in {config.gpus} processes, before in {before}: random draws differ from here on"
                )
        for line in taken:
            log.write(f"Warm start:  {line}")
        if session.nimg >= round(config.kimg * 1000):
            log.write(f"Note:        the run has reached --kimg={config.kimg:g} already; a larger --kimg continues it")
        if state is not None and state["config"]["metrics"] == config.metrics:
            measure_what_was_missed(session, run_dir, log)
        status = run(session, run_dir, log)
        if status:
            log.write(f"Stopped at {session.nimg / 1000:.1f} kimg; the same command with --resume=latest continues")
        else:
            for line in closing(session, run_dir):
                log.write(line)
    return status


def closing(session: Session, run_dir: Path) -> list[str]:
    """The last lines of the log: files to look at, and the next commands."""
    snapshot, grid = snapshot_path(session, run_dir), fake_grid_path(session, run_dir)
    distils = session.config.kd.enabled
    lines = [
        f"Finished at {session.nimg / 1000:.1f} kimg. Look at",
        f"    {grid}    generated images (reals.png: the training images)",
        f"    {run_dir / 'chart.png'}    D's scores{' and the distillation' if distils else ''}",
        f"    {run_dir / 'views.png'}    what D {'and the teacher see' if distils else 'sees'}",
        "For more images:",
        f"    python generate.py --network={snapshot} --seeds=0-31 --trunc=0.7",
    ]
    if DemoSpec.parse(session.config.data):
        lines += [
            "For your own images (a folder or zip of 100 or more; a GPU is recommended):",
            "    python train.py --kd=clip --data=FOLDER --resolution=256",
        ]
    return lines


def run_name(config: TrainConfig) -> str:
    """'100-shot-obama-low_shot-kd-clip': the images, the preset, the teacher, and --desc."""
    data = re.sub(r"\.zip$", "", Path(config.data.rstrip("/\\")).name)
    parts = [data, config.cfg]
    if config.kd.enabled:
        parts.append("kd")
        for _, spec in split_spec(config.kd.teacher):
            scheme, _, rest = spec.partition(":")
            parts += [scheme, Path(rest).stem] if rest and scheme != "script" else [scheme]
    if config.desc:
        parts.append(config.desc)
    return "-".join(parts)


if __name__ == "__main__":
    main()
