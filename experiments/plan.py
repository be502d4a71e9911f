"""What a table would cost: GPU-hours from measured speeds, disk space from the networks' sizes, downloads."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterator, Sequence

import torch

from experiments.results import seconds_per_kimg
from experiments.runs import Run, missing_data
from experiments.table import Table
from training.config import TrainConfig
from training.networks import MODELS
from training.presets import resolve

__all__ = ["plan_lines"]

_GB = 1e9


def plan_lines(table: Table, runs: Sequence[Run]) -> Iterator[str]:
    """Every command, then what all together need."""
    for run in runs:
        yield f"# {run.name}: {run.state}"
        yield shlex.join(run.command)
    left = [run for run in runs if not run.finished]
    configs = [(run, _config(run, table)) for run in left]
    yield f"# {len(runs)} runs, {len(runs) - len(left)} of them finished"
    yield f"# {_time(table, runs, sum(config.kimg for _, config in configs))}"
    disk = sum(_bytes(config, table) for _, config in configs)
    yield f"# disk: about {disk / _GB:.1f} GB of snapshots and states"
    if table.gigabytes:
        downloads = ", ".join(f"{what} {size:g} GB" for what, size in table.gigabytes.items())
        yield f"# downloads, once: {downloads}"
    for name, command in missing_data(table, runs).items():
        yield f"# {name} is not there; make it: {command}"


def _config(run: Run, table: Table) -> TrainConfig:
    """As train.py resolves it, but for the images, which are not opened."""
    fields = TrainConfig.__dataclass_fields__
    given = {key: value for key, value in run.flags.items() if key in fields}
    return resolve(given, {"teacher": "none"}, table.resolution)


def _time(table: Table, runs: Sequence[Run], kimg: float) -> str:
    measured = [seconds for run in runs if (seconds := seconds_per_kimg(run)) is not None]
    if measured:
        seconds, where = statistics.median(measured), f"the median of {len(measured)} runs of this table"
    elif table.sec_per_kimg:
        where, seconds = next(iter(table.sec_per_kimg.items()))
    else:
        return f"time: {kimg:,.10g} kimg are left; no speed was measured yet, run one cell (--only) and plan again"
    hours = kimg * seconds / 3600
    return (
        f"time: {kimg:,.10g} kimg are left, {hours:,.3g} hours one after the other at {seconds:.3g} sec/kimg ({where})"
    )


def _bytes(config: TrainConfig, table: Table) -> float:
    """Snapshots hold G, its average and D; the state these and two moments of Adam for each weight of G and D."""
    images = {"c_dim": 0, "img_resolution": config.resolution or table.resolution, "img_channels": 3}
    model = MODELS[config.model]
    with torch.device("meta"):
        g, d = (
            sum(parameter.numel() for parameter in network(**images, **network.arguments(config)).parameters())
            for network in (model.generator, model.discriminator)
        )
    snapshots = math.ceil(config.kimg / (config.tick * config.snap))
    kept = snapshots if config.snap_keep is None else min(snapshots, config.snap_keep + 1)
    return 4 * (kept * (2 * g + d) + 4 * g + 3 * d)
