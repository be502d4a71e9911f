"""The training loop: what happens in one step, in one tick, and when a run is saved or stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import RunFailed
from kd_plugin.config.schema import to_dict
from torch_utils.seeding import seed_step
from torch_utils.stats import Figure, Stopwatch
from training.checkpoint import delete_old_snapshots, save_snapshot, save_state
from training.data.pixels import to_float
from training.data.sampler import make_loader
from training.ema import ema_beta, update_ema
from training.phases import Batch
from training.report.chart import save_chart
from training.report.image_grid import grid_shape, save_grid
from training.report.logbook import Logbook
from training.report.progress import figures, forecast, tick_line
from training.report.views import save_views
from training.session import HOW_TO_GO_ON, Session

__all__ = ["run"]

LONGEST_UNSAVED_SEC = 3600  # however long a tick lasts, no more than this is lost


def run(session: Session, run_dir: Path, book: Logbook) -> int:
    """Trains until `config.kimg`, or until SIGINT or SIGTERM arrives in some process.

    Process 0 writes; what all of them must do together (steps, sums, agreeing on when to stop) is done by all.

    Returns:
        0, or 128 + the signal's number; the state was saved in either case.

    Raises:
        RunFailed: the gradients were not finite too often, or a weight is not.
    """
    config, ranks = session.config, session.ranks
    total_nimg = round(config.kimg * 1000)
    tick_nimg = max(round(config.tick * 1000), 1)
    loader = make_loader(
        session.dataset,
        batch=config.batch,
        seed=config.seed,
        start_nimg=session.nimg,
        workers=config.workers,
        pin_memory=session.device.type == "cuda",
        rank=ranks.rank,
        world=ranks.world,
    )
    data_watch = Stopwatch(torch.device("cpu"))
    if session.nimg == 0 and ranks.is_main:
        save_real_grid(session, run_dir)
        save_fake_grid(session, run_dir / "fakes_init.png")
        save_views(session, run_dir / "views.png")
    started = saved_at = tick_started = time.perf_counter()
    start_nimg = tick_start_nimg = session.nimg
    cycle_nimg = config.batch * max(phase.interval for phase in session.phases)

    with caught_signals() as caught:
        stopping = False
        while session.nimg < total_nimg and not stopping:
            seed_step(config.seed, ranks.rank, session.nimg)
            with data_watch.running():
                pixels, labels, indices = next(loader)
                real = to_float(pixels.to(session.device, non_blocking=True))
                batch = Batch(real, labels.to(session.device, non_blocking=True), indices)
            train_step(session, batch)
            book.advance(config.batch)

            now = time.perf_counter()
            if session.nimg == start_nimg + cycle_nimg:
                book.say(forecast(session, (now - started) / cycle_nimg))
            stopping, overdue = ranks.any(bool(caught), now - saved_at > LONGEST_UNSAVED_SEC)
            done = session.nimg >= total_nimg or stopping
            ticked = session.nimg >= tick_start_nimg + tick_nimg or done
            require_finite_gradients(session, ticked)
            if ticked:
                numbers = figures(session, session.nimg - tick_start_nimg, now - tick_started, data_watch.drain())
                session.tick += 1
                book.tick(numbers)
                book.say(tick_line(numbers, session.terms_info))
                for line in transfer_warnings(session, numbers):
                    book.say(line)
            if done or (ticked and session.tick % config.snap == 0) or overdue:
                for line in (*save(session, run_dir), *measure(session, run_dir)):
                    book.say(line)
                saved_at = time.perf_counter()
            if ticked:  # after the save, which is no part of the next tick's time
                tick_started, tick_start_nimg = time.perf_counter(), session.nimg
    return 128 + max(ranks.gather(caught[0] if caught else 0)) if stopping else 0


def train_step(session: Session, batch: Batch) -> None:
    """One batch through every phase whose turn it is, then the averages."""
    config = session.config
    step = session.nimg // config.batch
    for phase in session.phases:
        if step % phase.interval == 0:
            phase.step(batch.split(config.micro_batch))
    beta = ema_beta(config.batch, config.ema_kimg, session.ema_rampup, session.nimg)
    update_ema(session.G_ema, session.G, beta)
    session.nimg += config.batch
    session.context.nans.end_step()
    session.augmentation.end_step(config.batch, session.ranks)


def measure(session: Session, run_dir: Path) -> Iterator[str]:
    """The metrics of the snapshot that was just saved; lines for the log."""
    if session.monitors.metrics is not None:
        snapshot = snapshot_path(session, run_dir)
        yield from session.monitors.metrics.measure(session.G_ema, run_dir, snapshot, session.nimg, session.ranks)


def snapshot_path(session: Session, run_dir: Path) -> Path:
    return run_dir / f"network-snapshot-{session.nimg // 1000:06d}.safetensors"


def save(session: Session, run_dir: Path) -> list[str]:
    """An image grid, a snapshot for use, and the state to go on from, in this order: each appears whole.

    Returns:
        Lines for the log.

    Raises:
        RunFailed: a weight is not finite: nothing is written, what was saved before stays.
        UserError: the processes' weights have come apart.
    """
    session.require_finite_weights()
    session.require_agreement()
    kimg, warnings = session.nimg // 1000, []
    if session.ranks.is_main:
        warnings = session.monitors.variety.note(save_fake_grid(session, run_dir / f"fakes{kimg:06d}.png"))
    state = session.state_dict()
    if not session.ranks.is_main:
        return warnings
    meta = {
        "config": to_dict(session.config),
        "nimg": session.nimg,
        "class_names": session.dataset.class_names,
        "augment_p": None if session.augmentation.ada is None else session.augmentation.ada.p,
    }
    save_snapshot(snapshot_path(session, run_dir), session.networks(), meta)
    save_state(run_dir, {"config": to_dict(session.config), **state})
    save_chart(run_dir, session.terms_info)
    if session.config.snap_keep is not None:
        delete_old_snapshots(run_dir, session.config.snap_keep)
    return warnings


def transfer_warnings(session: Session, numbers: dict[str, Figure]) -> list[str]:
    """What a tick's figures give cause for; a control is meant to teach nothing."""
    if session.config.kd.control != "none" or "KD/explained" not in numbers:
        return []
    return session.monitors.learning.note(numbers["KD/explained"].mean)


def require_finite_gradients(session: Session, ticked: bool) -> None:
    """An accelerator is asked only now and then: the answer means waiting for it."""
    steps = session.nimg // session.config.batch
    if session.device.type != "cpu" and not ticked and steps % 16:
        return
    if session.context.nans.streak() >= session.config.max_nan_steps:
        raise RunFailed(
            f"--max-nan-steps={session.config.max_nan_steps}: at {session.nimg / 1000:g} kimg the gradients had not "
            f"been finite in so many steps in a row; {HOW_TO_GO_ON}"
        )


def save_real_grid(session: Session, run_dir: Path) -> None:
    rows, columns = grid_shape(session.dataset.resolution)
    images = torch.cat(list(session.dataset.images(limit=rows * columns, batch=64)))
    save_grid(images, run_dir / "reals.png", columns)


@torch.no_grad()
def save_fake_grid(session: Session, path: Path) -> Tensor:
    """The same latents at every call, through the averaged generator with constant noise: the images that it shows."""
    rows, columns = grid_shape(session.dataset.resolution)
    draws = torch.Generator().manual_seed(session.config.seed)
    z = torch.randn([rows * columns, session.G.z_dim], generator=draws)
    labels = torch.from_numpy(session.dataset.labels_at(np.arange(rows * columns) % session.dataset.used))
    images = [
        session.G_ema(z_part.to(session.device), c_part.to(session.device), noise_mode="const").cpu()
        for z_part, c_part in zip(
            z.split(session.config.micro_batch), labels.split(session.config.micro_batch), strict=True
        )
    ]
    grid = torch.cat(images)
    save_grid(grid, path, columns)
    return grid


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM instead of dying of them; the second SIGINT interrupts at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
