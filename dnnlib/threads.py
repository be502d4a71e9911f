"""Thread settings for training on CPUs, applied when this module is imported: import it before torch.

OpenMP threads spin while they wait for each other. Beside other programs they then take each other's time, and training
becomes several times slower (docs/performance.md). Settings of the user are never overridden.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

__all__ = [
    "CPUS_IN_USE",
    "SET_HERE",
    "SPIN_BUSY",
    "SPIN_IDLE",
    "WAITING",
    "apply_settings",
    "busy_note",
    "cpu_quota",
    "cpus_in_use",
    "usable_cpus",
]

BUSY = 0.6  # fraction of the CPUs that others use, from which the machine counts as busy; one of two is not
SAMPLE_SEC = 0.1
# Of GNU OpenMP, whose default is 300,000. With 1,000 the demo takes 0.45 of the time of 10,000 beside another program,
# and 1.8 of it on an idle machine (docs/performance.md).
SPIN_IDLE, SPIN_BUSY = 10_000, 1_000
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # any of them is a choice of the user's
SET_HERE: set[str] = set()  # variables that are not the user's choice
_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def apply_settings(environment: MutableMapping[str, str], in_use: float | None) -> None:
    """Let waiting threads sleep soon, sooner on a busy machine, and use no more of them than the quota has CPUs for.

    It has an effect only before torch is imported. Other OpenMP runtimes than GNU's ignore the spin count.

    Args:
        environment: the process's.
        in_use: from `cpus_in_use`.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = str(SPIN_BUSY if in_use is not None and in_use >= BUSY else SPIN_IDLE)
    cpus = usable_cpus()
    if not any(name in environment for name in _NUMBERS) and cpus < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(cpus)
        SET_HERE.add("OMP_NUM_THREADS")


def usable_cpus() -> int:
    """The CPUs that this process may run on: of the machine, its affinity, and the container's quota, the fewest."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return affinity if quota is None else max(min(affinity, math.ceil(quota)), 1)


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The container's CPU quota in CPUs (cgroup v2, else v1); None without one."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except ValueError:  # "max"
        return None


def cpus_in_use(stat: Path = Path("/proc/stat")) -> float | None:
    """The fraction of all CPU time that is in use, over 0.1 s; None if it is unknown."""
    try:
        begin = _times(stat)
        time.sleep(SAMPLE_SEC)
        end = _times(stat)
    except (OSError, ValueError, IndexError):
        return None
    total = end[0] - begin[0]
    return 1 - (end[1] - begin[1]) / total if total > 0 else None


def _times(stat: Path) -> tuple[int, int]:
    """All CPU time since the start of the machine, and the idle part of it, in ticks."""
    values = [int(value) for value in stat.read_text().splitlines()[0].split()[1:9]]
    return sum(values), values[3] + values[4]  # idle, waiting for a disk


def busy_note(in_use: float | None) -> str | None:
    """A sentence for the user if other programs use much of the machine; None if not, or if it is unknown."""
    if in_use is None or in_use < BUSY:
        return None
    return f"this machine is busy ({in_use:.0%} of its CPUs are in use): training will be slower than usual"


CPUS_IN_USE: float | None = None  # at the start of this program, if it was measured
if "torch" not in sys.modules:
    if "WORLD_SIZE" not in os.environ:  # the processes of one job would measure each other
        CPUS_IN_USE = cpus_in_use()
    apply_settings(os.environ, CPUS_IN_USE)
