"""The runs of a table: their commands, their folders, and how far each one is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from experiments.table import FOLDER, Cell, Table
from kd_plugin.errors import nearest

__all__ = ["Outcome", "Place", "Run", "chosen_cells", "claim_folder", "finish", "missing_data", "runs_of", "start"]

LOG, DONE, OWNER = "output.txt", "done.json", "table.json"
TAIL_LINES = 12


@dataclass(frozen=True)
class Place:
    """Where a table is run: its folder, where data sets lie, and what stands for {teacher} and {detector}."""

    out: Path
    data: Path | None
    teacher: str
    detector: str
    device: str = "auto"


@dataclass(frozen=True)
class Run:
    """A cell with a seed. `flags` are those of train.py, with nothing left to replace."""

    cell: Cell
    seed: int
    flags: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return f"{' / '.join(self.cell.names)}, seed {self.seed}"

    @property
    def command(self) -> list[str]:
        """To be started in the repository's root. It continues a run that was stopped."""
        flags = [f"--{key.replace('_', '-')}={_text(value)}" for key, value in self.flags.items()]
        return ["python", "train.py", *flags, f"--outdir={self.folder}", "--resume=latest"]

    @property
    def run_dir(self) -> Path | None:
        """The folder that train.py made, the newest one; None before it did."""
        found = sorted(self.folder.glob("[0-9][0-9][0-9][0-9][0-9]-*"))
        return found[-1] if found else None

    @property
    def finished(self) -> bool:
        """It ended by itself, with today's flags."""
        try:
            done = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(done, dict) and done.get("command") == shlex.join(self.command)

    @property
    def state(self) -> str:
        if self.finished:
            return "finished"
        return "new" if self.run_dir is None else "started"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` of its process, and the last lines it wrote."""

    run: Run
    status: int
    tail: str


def runs_of(table: Table, place: Place, seeds: int, only: Sequence[str] = ()) -> list[Run]:
    """Seed by seed, so that every cell has a figure early.

    Raises:
        UserError: a name in `only` belongs to no choice.
    """
    cells = chosen_cells(table, only)
    return [
        Run(cell, seed, _flags(cell, seed, place), place.out / "runs" / _slug(cell, seed))
        for seed in range(seeds)
        for cell in cells
    ]


def chosen_cells(table: Table, only: Sequence[str]) -> list[Cell]:
    """Those that have one of the named choices of every axis that is named; all if `only` is empty."""
    known = {choice.name: axis for axis in table.axis for choice in axis.choice}
    for name in only:
        if name not in known:
            raise UserError(f"--only: '{name}' is no row or column of {table.name}{nearest(name, known)}")
    wanted = [{name for name in only if known[name] is axis} for axis in table.axis]
    return [
        cell
        for cell in table.cells()
        if all(not names or name in names for names, name in zip(wanted, cell.names, strict=True))
    ]


def _flags(cell: Cell, seed: int, place: Place) -> dict[str, Any]:
    replaced = {"teacher": place.teacher, "detector": place.detector, "here": FOLDER}
    flags: dict[str, Any] = {}
    for key, value in cell.flags.items():
        if key == "kd_variant" and value == "none":
            continue
        if isinstance(value, str):
            value = re.sub(r"\{(teacher|detector|here)\}", lambda found: str(replaced[found[1]]), value)
        if key in ("data", "reference") and place.data is not None and (place.data / value).exists():
            value = str(place.data / value)
        flags[key] = value
    if flags.get("kd") == "none":  # a baseline is the same command without the teacher's options
        flags = {key: value for key, value in flags.items() if not key.startswith("kd_")}
    device = {} if place.device == "auto" else {"device": place.device}
    return {**flags, "seed": seed, **device}


def missing_data(table: Table, runs: Sequence[Run]) -> dict[str, str]:
    """Data sets that these runs need, that are not there and not known by name: {file: the command that makes it}."""
    needed = {run.flags[key]: None for run in runs for key in ("data", "reference") if key in run.flags}
    return {name: table.prepare[name] for name in needed if name in table.prepare and not Path(name).exists()}


def claim_folder(table: Table, place: Place, scale: str) -> None:
    """Makes the folder of a table's runs.

    Raises:
        UserError: it belongs to another table.
    """
    owner, ours = place.out / OWNER, {"table": table.name, "scale": scale}
    if owner.is_file():
        try:
            theirs = json.loads(owner.read_text(encoding="utf-8"))
        except ValueError:
            theirs = None
        if theirs != ours:
            was = " at scale ".join(theirs.values()) if isinstance(theirs, dict) else "something else"
            raise UserError(
                f"--out: '{place.out}' holds the runs of {was}, this is {table.name} at scale {scale}; give another "
                "folder"
            )
        return
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomic(owner, json.dumps(ours))


def start(run: Run, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the run's command; what it prints goes to output.txt in its folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *run.command[1:]], cwd=FOLDER.parent, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def finish(run: Run, process: subprocess.Popen[bytes]) -> Outcome:
    """Waits for the run, and notes it if it ended by itself."""
    status = process.wait()
    if status == 0:
        write_atomic(run.folder / DONE, json.dumps({"command": shlex.join(run.command)}))
    return Outcome(run, status, _tail(run.folder / LOG))


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _slug(cell: Cell, seed: int) -> str:
    """A folder's name, different for different cells."""
    parts = [re.sub(r"[^A-Za-z0-9.%+]+", "-", name).strip("-") for name in cell.names]
    return f"{'_'.join(parts)}_s{seed}".replace("%", "pct")
