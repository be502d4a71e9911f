"""A worker of `benchmarks.step`: a process that runs and times a phase on request."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping

__all__ = ["LEARNING_RATE", "serve"]

# So small that the networks stay at their initialisation. Trained on a few random images, D becomes so certain
# within a minute that gradients are denormal numbers, which a CPU multiplies 100 times more slowly.
LEARNING_RATE = 1e-6


def serve(phases: Mapping[str, Callable[[], None]], wait: Callable[[], None]) -> None:
    """Answers each name of a phase on stdin with its seconds on stdout, and `peak` with the process's peak in GB.

    Args:
        phases: what can be run.
        wait: until the device has done all that it was asked.
    """
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name == "peak":
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        else:
            wait()
            begun = time.perf_counter()
            phases[name]()
            wait()
            answer = time.perf_counter() - begun
        print(json.dumps(answer), flush=True)
