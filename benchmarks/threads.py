"""How waiting OpenMP threads behave beside other programs: seconds for the same convolutions under several settings.

    python -m benchmarks.threads

Each setting runs in its own process, in turns, first on the idle machine, then beside another program of the same
kind. Reported: the median of the rounds, and its ratio to torch's default.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from training.cli import script

SETTINGS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORK = """
import time, torch
x, w = torch.randn(16, 64, 32, 32), torch.randn(64, 64, 3, 3)
for _ in range(5): torch.nn.functional.conv2d(x, w, padding=1)
started = time.perf_counter()
for _ in range({count}): torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(x, w, padding=1))
print(time.perf_counter() - started)
"""


def seconds(setting: str, count: int) -> float:
    names = {name for values in SETTINGS.values() for name in values}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", WORK.format(count=count)]
    done = subprocess.run(command, env={**environment, **SETTINGS[setting]}, capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def neighbour(present: bool) -> Iterator[None]:
    """Another program that computes with torch's default settings on all CPUs."""
    if not present:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", WORK.format(count=10**9)])
    try:
        yield
    finally:
        other.kill()
        other.wait()


@click.command(help=__doc__)
@click.option("--count", default=150, show_default=True, help="Convolutions")
@click.option("--rounds", default=4, show_default=True)
@script
def main(count: int, rounds: int) -> None:
    click.echo("| | idle, s | ratio | beside another, s | ratio |\n|---|---|---|---|---|")
    medians: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for present in (False, True):
        with neighbour(present):
            times = [{setting: seconds(setting, count) for setting in SETTINGS} for _ in range(rounds)]
        for setting in SETTINGS:
            medians[setting].append(statistics.median(row[setting] for row in times))
    for setting, (idle, busy) in medians.items():
        first = medians["default"]
        click.echo(f"| {setting} | {idle:.2f} | {idle / first[0]:.2f} | {busy:.2f} | {busy / first[1]:.2f} |")


if __name__ == "__main__":
    main()
