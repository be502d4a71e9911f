"""The training loop: one step, the end of a tick, saving and stopping."""

from __future__ import annotations

import itertools
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
from torch_utils.stats import Stat, Stopwatch
from torch_utils.stop_signals import stop_signals_go_to
from training.checkpoint import SNAPSHOTS, delete_old_snapshots, save_snapshot, save_state
from training.data.pixels import to_float
from training.data.sampler import make_loader
from training.ema import ema_beta, update_ema
from training.phases import Batch
from training.report.chart import save_chart
from training.report.image_grid import GRIDS, grid_shape, save_grid
from training.report.logbook import Logbook
from training.report.progress import forecast, tick_line, tick_stats
from training.report.views import save_views
from training.session import HOW_TO_CONTINUE, Session

__all__ = ["fake_grid_path", "measure_what_was_missed", "run", "snapshot_path"]

LONGEST_UNSAVED_SEC = 3600  # at most this much work is lost, however long a tick lasts


def run(session: Session, run_dir: Path, log: Logbook) -> int:
    """Train until `config.kimg`, or until a stop signal (SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2) arrives in some
    process.

    Process 0 writes. What all processes must do together (steps, sums, agreeing on when to stop) is done by all.

    Returns:
        0, or 128 + the signal's number; the state was saved in either case.

    Raises:
        RunFailed: the gradients were not finite in too many steps in a row, or a weight is not.
    """
    config, ranks = session.config, session.ranks
    batches = device_batches(session)
    if session.nimg == 0 and ranks.is_main:
        save_first_images(session, run_dir)
    clock = TickClock(session)
    with caught_signals() as caught:
        stopping = False
        while not session.finished and not stopping:
            seed_step(config.seed, ranks.rank, session.nimg)
            with clock.data.running():
                batch = next(batches)
            train_step(session, batch)
            log.advance(config.batch)
            if clock.first_cycle_ended(session):
                log.write(forecast(session, clock.seconds_per_image(session)))
            stopping, overdue = ranks.any(bool(caught), clock.unsaved_seconds() > LONGEST_UNSAVED_SEC)
            done = session.finished or stopping
            ticked = clock.tick_ended(session) or done
            require_finite_gradients(session, ticked)
            if ticked:
                end_tick(session, clock, log)
            if done or (ticked and session.tick % config.snap == 0) or overdue:
                save_and_measure(session, run_dir, log)
                clock.saved()
            if ticked:  # after the save, which does not belong to the next tick's time
                clock.start_tick(session)
    return 128 + max(ranks.gather(caught[0] if caught else 0)) if stopping else 0


class TickClock:
    """When the current tick, the first lazy cycle and the last save began, and the time spent on waiting for data."""

    def __init__(self, session: Session) -> None:
        config = session.config
        self._tick_nimg = max(round(config.tick * 1000), 1)
        self._cycle_nimg = config.batch * max(phase.interval for phase in session.phases)
        self._start_nimg = session.nimg
        self._started = self._saved_at = time.perf_counter()
        self.data = Stopwatch(torch.device("cpu"))
        self.start_tick(session)

    def start_tick(self, session: Session) -> None:
        self._tick_started, self._tick_start_nimg = time.perf_counter(), session.nimg

    def tick_ended(self, session: Session) -> bool:
        return session.nimg >= self._tick_start_nimg + self._tick_nimg

    def tick(self, session: Session) -> tuple[int, float, float]:
        """Images, seconds, and seconds spent waiting for data, since the tick began."""
        seconds = time.perf_counter() - self._tick_started
        return session.nimg - self._tick_start_nimg, seconds, self.data.drain()

    def first_cycle_ended(self, session: Session) -> bool:
        """True once: every phase, the lazy ones included, has run as often as it will on average."""
        return session.nimg == self._start_nimg + self._cycle_nimg

    def seconds_per_image(self, session: Session) -> float:
        return (time.perf_counter() - self._started) / (session.nimg - self._start_nimg)

    def saved(self) -> None:
        self._saved_at = time.perf_counter()

    def unsaved_seconds(self) -> float:
        return time.perf_counter() - self._saved_at


def device_batches(session: Session) -> Iterator[Batch]:
    """Endless batches of training images in [-1, 1], from where the run stands, on its device."""
    config, device = session.config, session.device
    loader = make_loader(
        session.dataset,
        batch=config.batch,
        seed=config.seed,
        start_nimg=session.nimg,
        workers=config.workers,
        pin_memory=device.type == "cuda",
        rank=session.ranks.rank,
        world=session.ranks.world,
    )

    def on_device(pixels: Tensor, labels: Tensor, indices: Tensor) -> Batch:
        return Batch(to_float(pixels.to(device, non_blocking=True)), labels.to(device, non_blocking=True), indices)

    return itertools.starmap(on_device, loader)  # not a generator: the loader's own draws come before the first step


def end_tick(session: Session, clock: TickClock, log: Logbook) -> None:
    stats = tick_stats(session, *clock.tick(session))
    session.tick += 1
    log.tick(stats)
    log.write(tick_line(stats, session.terms_info))
    for line in (*learning_warnings(session, stats), *session.monitors.strength.note(stats)):
        log.write(line)


def train_step(session: Session, batch: Batch) -> None:
    """Run every phase that is due on one batch, then update the moving averages."""
    config = session.config
    step = session.nimg // config.batch
    for phase in session.phases:
        if step % phase.interval == 0:
            phase.step(batch.split(config.micro_batch))
    beta = ema_beta(config.batch, config.ema_kimg, session.ema_rampup, session.nimg, config.ema_start)
    update_ema(session.G_ema, session.G, beta, session.G.averages_buffers)
    session.nimg += config.batch
    session.context.nans.end_step()
    session.augmentation.end_step(config.batch, session.ranks)


def save_and_measure(session: Session, run_dir: Path, log: Logbook) -> None:
    for line in save(session, run_dir):
        log.write(line)
    if session.ranks.is_main:
        log.picture("fakes", fake_grid_path(session, run_dir), session.nimg)
    measure(session, run_dir, log)


def measure_what_was_missed(session: Session, run_dir: Path, log: Logbook) -> None:
    """The last save of a run that was killed before it was measured."""
    monitor, snapshot = session.monitors.metrics, snapshot_path(session, run_dir)
    if monitor is not None and session.ranks.from_first(
        lambda: snapshot.is_file() and not monitor.has_measured(run_dir, session.nimg)
    ):
        measure(session, run_dir, log)


def measure(session: Session, run_dir: Path, log: Logbook) -> None:
    """The snapshot that was saved last."""
    monitor = session.monitors.metrics
    if monitor is not None:
        measured = monitor.measure(session.G_ema, run_dir, snapshot_path(session, run_dir), session.nimg, session.ranks)
        for line in measured.lines:
            log.write(line)
        log.scalars(measured.values, session.nimg)


def snapshot_path(session: Session, run_dir: Path) -> Path:
    return run_dir / _kimg_in_names(session).join(SNAPSHOTS)


def fake_grid_path(session: Session, run_dir: Path) -> Path:
    return run_dir / _kimg_in_names(session).join(GRIDS)


def _kimg_in_names(session: Session) -> str:
    """'000012', as in official runs; '000012.480' in runs that save more than once in 1000 images."""
    config = session.config
    whole, rest = divmod(session.nimg, 1000)
    return f"{whole:06d}" if config.tick * config.snap >= 1 else f"{whole:06d}.{rest:03d}"


def save(session: Session, run_dir: Path) -> list[str]:
    """Write an image grid, a snapshot, and the training state, in this order; each file appears complete or not at all.

    Returns:
        Lines for the log.

    Raises:
        RunFailed: a weight is not finite; nothing is written, earlier files stay.
        UserError: the processes' weights differ.
    """
    session.require_finite_weights()
    session.require_agreement()
    warnings = []
    if session.ranks.is_main:
        warnings = session.monitors.variety.note(save_fake_grid(session, fake_grid_path(session, run_dir)))
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


def learning_warnings(session: Session, stats: dict[str, Stat]) -> list[str]:
    """Warn if D learns nothing from the teacher; a control experiment is meant to teach nothing."""
    if session.config.kd.control != "none" or "KD/explained" not in stats:
        return []
    return session.monitors.learning.note(stats["KD/explained"].mean)


def require_finite_gradients(session: Session, ticked: bool) -> None:
    """On an accelerator only every 16th step and at ticks: checking waits for the device."""
    steps = session.nimg // session.config.batch
    if session.device.type != "cpu" and not ticked and steps % 16:
        return
    if session.context.nans.streak() >= session.config.max_nan_steps:
        raise RunFailed(
            f"--max-nan-steps={session.config.max_nan_steps}: at {session.nimg / 1000:g} kimg the gradients had not "
            f"been finite for that many steps in a row; {HOW_TO_CONTINUE}"
        )


def save_first_images(session: Session, run_dir: Path) -> None:
    """The training images, the untrained generator's images, and what D and the teacher see."""
    save_real_grid(session, run_dir)
    save_fake_grid(session, run_dir / "fakes_init.png")
    save_views(session, run_dir / "views.png")


def save_real_grid(session: Session, run_dir: Path) -> None:
    rows, columns = grid_shape(session.dataset.resolution)
    images = torch.cat(list(session.dataset.images(limit=rows * columns, batch=64)))
    save_grid(images, run_dir / "reals.png", columns)


@torch.no_grad()
def save_fake_grid(session: Session, path: Path) -> Tensor:
    """The averaged generator on the same latents at every call, with constant noise; returns its images."""
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
    """Record the stop signals instead of stopping at once; a second SIGINT interrupts immediately."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    with stop_signals_go_to(note):
        yield caught
