"""Train a StyleGAN2 on few images, guided by a frozen CLIP.

\b
    python train.py --kd=clip --data=100-shot-obama.zip     the method
    python train.py --data=100-shot-obama.zip               the same without distillation
    python train.py --kd=demo --data=demo                   no download, no GPU, some minutes
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.errors import UserError
from kd_plugin.config.click_flags import (
    TrainCommand,
    add_flags,
    grouped_option,
    import_option,
    variant_option,
)
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.ranges import ABOVE_0
from kd_plugin.config.schema import options_of
from kd_plugin.errors import flag
from kd_plugin.probe.run import SECONDS
from torch_utils.device import pick_device
from torch_utils.launch import launch
from torch_utils.place import place_in_job
from torch_utils.ranks import joined_ranks
from training.cli import arguments_of, function, given_values, script
from training.config import TrainConfig
from training.probing import probe_lines
from training.resume import config_json, content_of
from training.runs import Run, configure, run_or_continue
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
    config, dataset = configure(given, config_file, kd_variant)
    if kd_probe is not None:
        for line in probe_lines(Session.build(config, dataset), kd_probe, partial(click.echo, err=True)):
            click.echo(line)
        return
    if dry_run:
        session = Session.build(config, dataset)
        click.echo(config_json(session.config, session.prompts, content_of(config, dataset)))
        return
    if config.gpus > 1 and place_in_job() is None:
        require_gpus(config)
        sys.exit(launch([sys.executable, *sys.argv], config.gpus))
    with joined_ranks() as ranks:
        made = run_or_continue(config, dataset, resume, ranks)
    sys.exit(made.status)


def argument_names() -> dict[str, str]:
    """Of `train`, by flag; terms may have been registered since the last call."""
    of_kd = {name: f"kd_{item.key}" for item in options_of(KDConfig) if (name := item.flag_name(flag))}
    more = {"--kd": "kd", "--kd-variant": "kd_variant", "--resume": "resume", "--config": "config"}
    return {**arguments_of(TrainConfig), **of_kd, **more}


@function(argument_names)
def train(*, resume: str | Path | None = None, config: str | Path | None = None, **options: Any) -> Run:
    """What the command does, from Python: builds the run, trains in this process, and returns when it ends.

    Torch's random state and settings are afterwards as they were. One call runs at a time.

    Args:
        resume: `latest`, the folder of a run, or a snapshot to start from.
        config: a config.json to repeat.
        options: the other flags of train.py, with _ for - (`kd="clip"`, `kd_match=2.0`, `batch_gpu=4`). Terms that were
            registered before the call have their options too. None is a value (`conv_clamp=None`): leave an argument
            out to have its default.

    Raises:
        UserError: as the command; names the argument.
        RunFailed: the gradients were not finite, or not enough memory, or no room on the disk.
    """
    variant = options.pop("kd_variant", None)
    given = given_values({"kd_teacher" if name == "kd" else name: value for name, value in options.items()})
    resolved, dataset = configure(given, config, variant)
    if resolved.gpus > 1 and place_in_job() is None:
        raise UserError(f"--gpus={resolved.gpus}: a function trains in one process; for more start train.py")
    with joined_ranks() as ranks:
        return run_or_continue(resolved, dataset, None if resume is None else str(resume), ranks)


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


if __name__ == "__main__":
    main()
