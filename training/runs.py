"""One run from its start to its end: configured, built or continued, trained; and its log's first and last lines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import files_by_kimg, make_run_dir, require_writable, write_atomic
from kd_plugin.config.click_flags import require_in_range
from kd_plugin.config.kd import KDConfig, require_numbers
from kd_plugin.config.schema import accepted_values, to_dict
from kd_plugin.teachers import split_spec
from torch_utils.place import Place, place_in_job
from torch_utils.ranks import Ranks
from training.checkpoint import SNAPSHOTS, load_snapshot
from training.config import TrainConfig, with_precision
from training.data.dataset import ImageDataset
from training.data.image_sets import open_training_set
from training.drawings import DemoSpec
from training.loop import measure_what_was_missed, run
from training.presets import image_options, resolve
from training.report.describe import describe
from training.report.image_grid import GRIDS
from training.report.logbook import Logbook
from training.report.trackers import open_trackers, require_wandb
from training.resume import CONFIG, LATEST, config_json, content_of, read_config, run_to_continue, state_to_continue
from training.session import Session
from training.unused import require_effect

__all__ = ["Run", "configure", "run_or_continue"]


def configure(
    flags: Mapping[str, Any], config_file: str | Path | None = None, variant: str | None = None
) -> tuple[TrainConfig, ImageDataset]:
    """Open the images and resolve every option; a preset may depend on the images' size.

    Args:
        flags: those that were given, by key; of the distillation as `kd_` + key.
        config_file: a config.json, for the others.
        variant: a published configuration of the distillation.
    """
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in flags.items() if name in fields}
    kd_given = {name.removeprefix("kd_"): value for name, value in flags.items() if name not in fields}
    if (place := place_in_job()) is not None:
        given["gpus"] = processes_of(place, given.get("gpus"))
    saved = read_config(config_file).options if config_file is not None else None
    # Before images are opened, which takes time and depends on some of these.
    values = {"data": TrainConfig.data, **(saved or {}), **given}
    accepted_values(TrainConfig, {key: value for key, value in values.items() if key != "kd"})
    accepted_values(KDConfig, kd_given, "distillation option")
    require_in_range(TrainConfig, values)
    require_numbers(kd_given)
    dataset = open_training_set(image_options(given, saved))
    config = resolve(given, kd_given, dataset.resolution, saved, variant)
    require_effect(config, given, kd_given)
    return config, dataset


def processes_of(place: Place, asked: int | None) -> int:
    """
    Raises:
        UserError: --gpus asks for another number of processes than there are.
    """
    if asked not in (None, place.world):
        raise UserError(f"--gpus={asked}: {place.world} processes were started already (torchrun); leave --gpus out")
    return place.world


@dataclass(frozen=True)
class Run:
    """What `train` made.

    folder: of the run; see README.md for what it holds.
    snapshot: the networks as they are now, for generate and evaluate.
    grid: the latest image grid.
    kimg: thousands of real images shown so far.
    status: 0, or 128 + the number of the signal that stopped it.
    """

    folder: Path
    snapshot: Path
    grid: Path
    kimg: float
    status: int

    @property
    def finished(self) -> bool:
        """False if it was stopped (in a notebook, by interrupting the kernel); all was saved, and
        `train(..., resume=folder)` continues."""
        return self.status == 0


def run_or_continue(config: TrainConfig, dataset: ImageDataset, resume: str | None, ranks: Ranks) -> Run:
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
        taken = [f"Warm start:  {line}" for line in session.start_from(snapshot)]
    run_dir = run_dir or ranks.from_first(lambda: make_run_dir(Path(config.outdir), name))
    if ranks.is_main and (state is None or not session.finished):
        write_atomic(run_dir / CONFIG, config_json(config, session.prompts, content))

    with Logbook(run_dir if ranks.is_main else None, session.total_nimg, session.nimg) as log:
        if ranks.is_main:
            log.follow(open_trackers(run_dir, to_dict(config), session.nimg, log.write))
        log.write(f"Run folder:  {run_dir}")
        for line in (*describe(session), *origin(session, state, resume), *taken):
            log.write(line)
        if state is not None and state["config"]["metrics"] == config.metrics:
            measure_what_was_missed(session, run_dir, log)
        status = run(session, run_dir, log)
        newest, newest_grid = ranks.from_first(lambda: newest_files(run_dir))
        made = Run(run_dir, newest, newest_grid, session.nimg / 1000, status)
        if status:
            log.write(f"Stopped at {session.nimg / 1000:.1f} kimg; the same command with --resume=latest continues")
        else:
            for line in closing(session, made):
                log.write(line)
    return made


def newest_files(run_dir: Path) -> tuple[Path, Path]:
    """The newest snapshot and image grid. Names follow from --tick and --snap, which a continuation may change."""
    snapshots, grids = files_by_kimg(run_dir, *SNAPSHOTS), files_by_kimg(run_dir, *GRIDS)
    return snapshots[max(snapshots)], grids[max(grids)]


def origin(session: Session, state: dict[str, Any] | None, resume: str | None) -> Iterator[str]:
    """Where a run stands that continues, or should have continued, another."""
    config = session.config
    if resume == LATEST and session.nimg == 0:
        yield f"Resume:      no earlier run called '{run_name(config)}' in '{config.outdir}'; this is a new one"
    elif state is not None:
        yield f"Resume:      at {session.nimg / 1000:.1f} kimg"
        if (before := state["config"]["gpus"]) != config.gpus:
            yield f"             in {config.gpus} processes, before in {before}: random draws differ from here on"
    if session.finished:
        yield f"Note:        the run has reached --kimg={config.kimg:g} already; a larger --kimg continues it"


def closing(session: Session, made: Run) -> list[str]:
    """The last lines of the log: files to look at, and the next commands."""
    distils = session.config.kd.enabled
    lines = [
        f"Finished at {session.nimg / 1000:.1f} kimg. Look at",
        f"    {made.grid}    generated images (reals.png: the training images)",
        f"    {made.folder / 'chart.png'}    D's scores{' and the distillation' if distils else ''}",
        f"    {made.folder / 'views.png'}    what D {'and the teacher see' if distils else 'sees'}",
        "For more images, and for a page on overfitting, copies and how the images changed:",
        f"    python generate.py --network={made.snapshot} --seeds=0-31 --trunc=0.7",
        f"    python report.py {made.folder}",
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
