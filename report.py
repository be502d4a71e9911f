"""Write one HTML page on one or several runs: overfitting, images over time, nearest training images, options.

\b
    python report.py runs/00000-obama-low_shot-kd-clip
    python report.py runs/00000-... runs/00001-... --out=compared.html
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dnnlib.errors import UserError
from dnnlib.files import require_writable, write_atomic
from kd_plugin.config.click_flags import GroupedCommand, add_flags, code_option, options_from
from kd_plugin.config.ranges import Range
from kd_plugin.config.schema import option
from torch_utils.device import pick_device
from training.cli import script
from training.report.page.document import render
from training.report.page.findings import Where
from training.report.page.record import RunRecord

SAMPLES = Range(0, 100_000)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this command."""

    out: str | None = option(
        None,
        "The page to write",
        metavar="FILE.html",
        group="Page",
        shown_default="report.html in the first run's folder",
    )
    samples: int = option(256, "Images to make and compare with the training images; 0: none", SAMPLES, metavar="N")
    detector: str | None = option(
        None,
        "What compares images: inception, a TorchScript file, or a teacher",
        metavar="NAME|PATH",
        shown_default="the first teacher of these runs; without any, pixels",
    )
    data: str | None = option(
        None, "The training images of runs whose own were moved", metavar="ZIP|DIR|NAME", shown_default="as in the run"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")


@click.command(cls=GroupedCommand, help=__doc__, context_settings={"max_content_width": 120})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@add_flags(Options)
@code_option
@script
def main(runs: tuple[str, ...], **flags: Any) -> None:
    options = options_from(Options, flags)
    out = Path(runs[0]) / "report.html" if options.out is None else Path(options.out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: '{out}' was given, its name must end with .html")
    records = [RunRecord.read(run) for run in {Path(run).resolve(): run for run in runs}.values()]
    require_writable(out.parent, flag="--out")
    where = Where(options.samples, options.data, options.detector, pick_device(options.device))
    page = render(records, where if options.samples else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page)
    runs_in_words = "one run" if len(records) == 1 else f"{len(records)} runs"
    click.echo(f"{out} ({len(page.encode()) / 2**20:.1f} MB) shows {runs_in_words}; open it in a browser")


if __name__ == "__main__":
    main()
