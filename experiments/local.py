"""Runs on this machine: one after the other, or several at a time that share its GPUs or its CPU."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from dnnlib.threads import usable_cpus
from experiments.runs import Outcome, Run, finish, start

__all__ = ["run_here"]


def run_here(runs: Sequence[Run], jobs: int, gpus: int, started: Callable[[Run], None]) -> Iterator[Outcome]:
    """Each run's outcome as it ends; a failed one does not stop the others. Interrupting it stops the runs, which save
    their state.

    Args:
        runs: to be trained.
        jobs: how many at a time; each has GPU number job % gpus to itself, or its share of the CPU's cores.
        gpus: of this machine.
        started: called with each run as it begins.
    """
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(jobs):
        slots.put(slot)

    def one(run: Run) -> Outcome:
        slot = slots.get()
        try:
            started(run)
            return finish(run, start(run, _environment(slot, jobs, gpus)))
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(one, run) for run in runs]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those that run got the interrupt too, and save
            raise


def _environment(slot: int, jobs: int, gpus: int) -> dict[str, str]:
    if gpus and jobs > 1:
        return {**os.environ, "CUDA_VISIBLE_DEVICES": _visible(gpus)[slot % gpus]}
    if not gpus and jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        return {**os.environ, "OMP_NUM_THREADS": str(max(usable_cpus() // jobs, 1))}
    return dict(os.environ)


def _visible(gpus: int) -> list[str]:
    """The GPUs' names in CUDA_VISIBLE_DEVICES."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return given if len(given) >= gpus else [str(number) for number in range(gpus)]
