"""Thread settings for training on CPUs, applied when this module is imported: import it before torch.

OpenMP threads spin while they wait for each other. Beside other programs they then take each other's time, and training
becomes several times slower (docs/performance.md). Settings of the user are never overridden.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["SPIN_COUNT", "WAITING", "apply_settings", "busy_note", "cpu_quota", "usable_cpus"]

BUSY_LOAD = 0.5  # load average per CPU above which the machine counts as busy
SPIN_COUNT = 10_000  # of GNU's OpenMP, which has 300,000; sleeping at once costs an idle machine 10 %, this 1 %
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # any of them is a choice of the user's
_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def apply_settings(environment: MutableMapping[str, str]) -> None:
    """Let waiting threads sleep soon, and use no more of them than the container's quota has CPUs for.

    It has an effect only before torch is imported. Other OpenMP runtimes than GNU's ignore the spin count.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    cpus = usable_cpus()
    if not any(name in environment for name in _NUMBERS) and cpus < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(cpus)


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


def busy_note() -> str | None:
    """A sentence for the user if other programs use this machine; None if it is idle or this is unknown."""
    try:
        load, cpus = os.getloadavg()[0], usable_cpus()
    except (AttributeError, OSError):
        return None
    if load < BUSY_LOAD * cpus:
        return None
    return f"this machine is busy (load {load:.1f} on {cpus} CPUs): training will be slower than usual"


if "torch" not in sys.modules:
    apply_settings(os.environ)
