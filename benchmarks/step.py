"""Time of a training step, phase by phase, of our code and of an official checkout.

    python -m benchmarks.step --resolution=64
    python -m benchmarks.step --resolution=64 --official=STYLEGAN2-ADA-PYTORCH

Each side is a separate process; they work in turns, so that other load on the machine affects both alike.
The iteration is the lazily regularised one: Gmain + Dmain + path length / 4 + R1 / 16 + the moving average.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
PHASES = {"Gmain": 1, "Dmain": 1, "Greg": 4, "Dreg": 16, "EMA": 1}  # every N-th iteration
TITLES = {"Gmain": "Gmain", "Dmain": "Dmain", "Greg": "path length", "Dreg": "R1", "EMA": "moving average"}


class Contestant:
    """A process that runs phases on request (see benchmarks.worker)."""

    def __init__(self, module: str, options: dict[str, Any]) -> None:
        command = [sys.executable, "-m", module, json.dumps(options)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()
        self.seconds: dict[str, list[float]] = {name: [] for name in PHASES}

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue  # a library's message
        raise SystemExit(f"'{' '.join(self.process.args[1:3])}' ended early; its message stands above")  # type: ignore[index]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def iteration(self) -> float:
        return sum(self.median(name) / every for name, every in PHASES.items())


@click.command()
@click.option("--resolution", default=64, show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--cbase", default=16384, show_default=True)
@click.option("--cmax", default=512, show_default=True)
@click.option("--map-depth", default=2, show_default=True)
@click.option("--num-fp16-res", default=0, show_default=True)
@click.option("--precision", default="fp16", show_default=True, help="Of these resolutions, for ours")
@click.option("--channels-last", is_flag=True, help="For ours on a GPU; on a CPU it always is")
@click.option("--tf32", is_flag=True, help="For both")
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--official", metavar="DIR", help="A checkout of stylegan2-ada-pytorch to run beside ours")
def main(rounds: int, official: str | None, **options: Any) -> None:
    contestants = {"ours": Contestant("benchmarks.step_ours", options)}
    if official:
        options["official"] = str(Path(official).resolve())
        contestants["official"] = Contestant("benchmarks.step_official", options)
    for turn in range(rounds + 1):  # the first is to warm up
        for name in PHASES:
            for contestant in contestants.values():
                seconds = contestant.ask(name)
                if turn:
                    contestant.seconds[name].append(seconds)
    report({name: _rows(contestant) for name, contestant in contestants.items()})


def _rows(contestant: Contestant) -> dict[str, float]:
    rows = {f"{TITLES[name]}, s": contestant.median(name) for name in PHASES}
    return {**rows, "iteration, s": contestant.iteration(), "peak memory, GB": contestant.ask("peak")}


def report(columns: dict[str, dict[str, float]]) -> None:
    names = list(columns)
    click.echo("".join([f"{'':18}", *(f"{name:>12}" for name in names), f"{'ratio':>10}" if len(names) == 2 else ""]))
    for row in columns[names[0]]:
        values = [columns[name][row] for name in names]
        ratio = f"{values[0] / values[1]:>10.2f}" if len(values) == 2 else ""
        click.echo("".join([f"{row:18}", *(f"{value:>12.3f}" for value in values), ratio]))


if __name__ == "__main__":
    main()
