"""Reproduce a table of experiments/: train its runs, gather their figures, write a report.

\b
    python reproduce.py list                    the tables
    python reproduce.py plan low_shot           every command, hours, disk space, downloads
    python reproduce.py low_shot                run, collect and report; start it again after any interruption
    python reproduce.py run low_shot            only the runs; likewise collect, report
    python reproduce.py cifar --scale=smoke     the whole table on drawings, in minutes on a CPU: does everything run?
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.errors import RunFailed, UserError
from dnnlib.files import require_writable, write_atomic
from experiments.local import run_here
from experiments.plan import plan_lines
from experiments.report import page, to_markdown
from experiments.results import figures_of, to_csv
from experiments.runs import Place, Run, claim_folder, missing_data, runs_of
from experiments.scale import SCALES, scaled
from experiments.slurm import parameters_of, require_slurm, submit
from experiments.table import Table, load_table, table_names
from kd_plugin.config.click_flags import GroupedCommand, add_flags, options_from
from kd_plugin.config.ranges import AT_LEAST_0, AT_LEAST_1
from kd_plugin.config.schema import option
from kd_plugin.errors import nearest
from torch_utils.device import pick_device
from training.cli import script
from training.report.page.findings import Where

ACTIONS = ("list", "plan", "run", "collect", "report")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this command."""

    out: str | None = option(
        None,
        "Folder of the table's runs and report",
        metavar="DIR",
        group="Table",
        shown_default="reproduction/TABLE; reproduction/TABLE-smoke at that scale",
    )
    only: str | None = option(
        None,
        "Only cells in these rows and columns, by the names of the table",
        metavar="NAME[,NAME]",
        shown_default="all",
    )
    seeds: int | None = option(
        None, "Runs of a cell", AT_LEAST_1, metavar="N", shown_default="the table's; 1 with --scale=smoke"
    )
    scale: str = option("full", "smoke: drawings and tiny networks, to see that everything runs", choices=SCALES)
    data: str | None = option(None, "Folder of the data sets that are not downloaded by name", metavar="DIR")
    teacher: str | None = option(None, "As for --kd of train.py", metavar="SPEC", shown_default="the table's")
    detector: str | None = option(
        None, "As for --detector of train.py", metavar="NAME|PATH", shown_default="the table's"
    )
    jobs: int | None = option(
        None, "Runs at a time", AT_LEAST_1, metavar="N", group="Machine", shown_default="one for each GPU, at least 1"
    )
    slurm: str | None = option(
        None,
        "Submit an array of Slurm jobs with these parameters of submitit, such as partition=gpu,timeout_min=600; "
        "--jobs limits how many run at once",
        metavar="NAME=VALUE[,...]",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")
    samples: int = option(
        64, "Report: samples compared with the training images; 0: none", AT_LEAST_0, metavar="N", group="Report"
    )


@click.command(cls=GroupedCommand, help=__doc__, context_settings={"max_content_width": 120})
@click.argument("words", nargs=-1, required=True, metavar="[ACTION] TABLE")
@add_flags(Options)
@script
def main(words: tuple[str, ...], **flags: Any) -> None:
    actions, name = parsed(words)
    options = options_from(Options, flags)
    if name is None:
        for line in listing():
            click.echo(line)
        return
    table = scaled(load_table(name), options.scale)
    place = place_of(table, options)
    only = [part.strip() for part in (options.only or "").split(",") if part.strip()]
    runs = runs_of(table, place, options.seeds or table.seeds, only)
    if "plan" in actions:
        for line in plan_lines(table, runs):
            click.echo(line)
        return
    require_all(table, runs, place, options, actions)
    require_writable(place.out, flag="--out")
    claim_folder(table, place, options.scale)
    failed: list[str] = []
    if "run" in actions:
        failed = run(table, runs, place, options)
        if options.slurm is not None:
            return
    if "collect" in actions:
        click.echo(collect(table, runs, place))
    if "report" in actions:
        click.echo(report(table, runs, place, options))
    if failed:
        raise RunFailed(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")


def parsed(words: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """What to do, and the table; None to list the tables.

    Raises:
        UserError: neither an action nor a table.
    """
    first, *rest = words
    if first == "list" and not rest:
        return ("list",), None
    if first in ACTIONS and len(rest) == 1:
        return (first,), rest[0]
    if first in ACTIONS:
        raise UserError(f"{first} takes one TABLE: {', '.join(table_names())}")
    if rest:
        raise UserError(f"'{first}' is unknown{nearest(first, ACTIONS)}; expected [ACTION] TABLE")
    return ("run", "collect", "report"), first


def listing() -> list[str]:
    """A line a table."""
    lines = []
    for name in table_names():
        table = load_table(name)
        seeds = "1 seed" if table.seeds == 1 else f"{table.seeds} seeds"
        lines.append(f"{name:<16} {len(table.cells()):>3} cells, {seeds:<8} {table.title}")
    return lines


def place_of(table: Table, options: Options) -> Place:
    """
    Raises:
        UserError: --data is no folder.
    """
    default = f"reproduction/{table.name}" + ("" if options.scale == "full" else f"-{options.scale}")
    data = None if options.data is None else Path(options.data)
    if data is not None and not data.is_dir():
        raise UserError(f"--data: '{options.data}' is not a folder; give the one that holds the table's data sets")
    return Place(
        out=Path(options.out or default).resolve(),
        data=None if data is None else data.resolve(),
        teacher=_whole(options.teacher or table.teacher),
        detector=_whole(options.detector or table.detector),
        device=options.device,
    )


def _whole(name: str) -> str:
    """A path as it is from any folder: runs start in the repository's."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def require_all(table: Table, runs: Sequence[Run], place: Place, options: Options, actions: Sequence[str]) -> None:
    """
    Raises:
        UserError: data sets of runs to be trained are missing, or Slurm is; nothing was run of what is to be shown.
    """
    if "run" not in actions:
        if not place.out.is_dir():
            raise UserError(f"--out: '{place.out}' does not exist; python reproduce.py run {table.name} makes it")
        return
    if missing := missing_data(table, [run for run in runs if not run.finished]):
        made = "; ".join(f"{name}: {command}" for name, command in missing.items())
        raise UserError(f"--data: data sets are missing; make them in one folder and give it as --data. {made}")
    if options.slurm is not None:
        parameters_of(options.slurm)
        require_slurm()


def run(table: Table, runs: Sequence[Run], place: Place, options: Options) -> list[str]:
    """Trains what is not finished; returns the names of the runs that failed."""
    left = [each for each in runs if not each.finished]
    click.echo(f"{len(runs) - len(left)} of {len(runs)} runs are finished; their folder is {place.out}")
    gpus = torch.cuda.device_count() if options.device in ("auto", "cuda") else 0
    jobs = options.jobs or max(gpus, 1)
    if options.slurm is not None:
        submitted = submit(left, place.out / "slurm", parameters_of(options.slurm), jobs)
        click.echo(
            f"submitted {len(submitted)} jobs, such as {submitted[0].job_id}" if submitted else "nothing is left"
        )
        return []
    failed = []
    for number, outcome in enumerate(run_here(left, jobs, gpus, lambda each: click.echo(f"started   {each.name}")), 1):
        if outcome.status == 0:
            click.echo(f"finished  {outcome.run.name} ({number} of {len(left)}){_figure_of(outcome.run, table)}")
        else:
            failed.append(outcome.run.name)
            click.echo(f"FAILED    {outcome.run.name}, exit status {outcome.status}:\n{outcome.tail}")
    return failed


def _figure_of(run: Run, table: Table) -> str:
    figure = figures_of(run).get(table.metric)
    return "" if figure is None else f": {table.metric} {figure.last:.4g}, best {figure.best:.4g}"


def collect(table: Table, runs: Sequence[Run], place: Place) -> str:
    """Writes results.csv, a line for each metric of each run; returns what was done."""
    path = place.out / "results.csv"
    write_atomic(path, to_csv(table, runs))
    return f"{path} holds the figures of {sum(bool(figures_of(each)) for each in runs)} runs"


def report(table: Table, runs: Sequence[Run], place: Place, options: Options) -> str:
    """Writes report.md and report.html; returns what was done."""
    where = Where(options.samples, None, place.detector, pick_device(options.device)) if options.samples else None
    content = page(table, runs, where)
    write_atomic(place.out / "report.md", to_markdown(table, runs))
    write_atomic(place.out / "report.html", content)
    size = len(content.encode()) / 2**20
    return f"{place.out / 'report.html'} ({size:.1f} MB) and report.md show them; open the page in a browser"


if __name__ == "__main__":
    main()
