"""Make the zip that train.py and official StyleGAN checkouts read, or check a set of images.

\b
    python dataset_tool.py convert --source=photos --dest=photos-256.zip --resolution=256
    python dataset_tool.py convert --source=cifar-10-python.tar.gz --dest=cifar10-10pct.zip --subset=10%
    python dataset_tool.py validate photos-256.zip

A source is a folder or zip of images, the CIFAR-10 or CIFAR-100 archive for Python, a folder with MNIST's files, an
LSUN lmdb, or a video. Labels are taken from dataset.json or from folders, captions from dataset.json or from text
files beside the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from dnnlib.errors import UserError
from dnnlib.files import require_free, require_writable, write_atomic
from dnnlib.threads import usable_cpus
from kd_plugin.config.click_flags import CommandGroup, GroupedCommand, add_flags, options_from
from kd_plugin.config.ranges import ABOVE_0, AT_LEAST_1, SEED, Range
from kd_plugin.config.schema import option
from training.cli import script
from training.data.convert import Converted, Form, choose, convert
from training.data.dataset import is_power_of_two
from training.data.decoding import FILTERS
from training.data.sources import SPLITS, Source, open_source
from training.data.validate import check_images


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `convert`."""

    source: str = option(MISSING, "Folder, zip, archive, lmdb or video", metavar="PATH", group="Images")
    dest: str = option(MISSING, "The zip to write", metavar="FILE.zip")
    resolution: int | None = option(
        None,
        "Resize every image to this size (a power of two)",
        Range(4, 2**14),
        metavar="PIXELS",
        shown_default="the images'",
    )
    crop: bool = option(True, "Cut the largest square from the centre; false: squeeze the whole image into a square")
    filter: str = option("lanczos", "Filter of the resizing", choices=tuple(FILTERS))
    labels: bool = option(True, "Take over labels; false: write none")
    subset: str | None = option(
        None, "Take this many images, drawn with --seed", metavar="N|SHARE%", shown_default="all"
    )
    seed: int = option(0, "Of the subset; 0 draws DiffAugment's subsets of CIFAR", SEED, metavar="N")
    split: str = option("train", "Part of a set that is published in two", choices=SPLITS)
    fps: float | None = option(
        None, "Frames a second to take of a video", ABOVE_0, metavar="X", shown_default="all frames"
    )
    skip_broken: bool = option(False, "Leave out images that cannot be read")
    list: bool = option(False, "Also write FILE.txt with the name of each image in the source")
    workers: int | None = option(
        None, "Processes", AT_LEAST_1, metavar="N", group="Machine", shown_default="one for each CPU"
    )


@click.group(cls=CommandGroup, help=__doc__, context_settings={"max_content_width": 120})
def main() -> None:
    pass


@main.command("convert", cls=GroupedCommand, help="Write a zip; started again after an interruption, it continues.")
@add_flags(Options)
@script
def convert_command(**flags: Any) -> None:
    options = options_from(Options, flags)
    dest = Path(options.dest)
    if dest.suffix.lower() != ".zip":
        raise UserError(f"--dest: '{options.dest}' was given, its name must end with .zip")
    if options.resolution is not None and not is_power_of_two(options.resolution):
        raise UserError(f"--resolution: {options.resolution} was given, it must be a power of two")
    require_free(dest, "--dest")
    require_writable(dest.parent, flag="--dest")
    dest.parent.mkdir(parents=True, exist_ok=True)
    source = open_source(Path(options.source), options.split, options.fps)
    if not options.labels:
        source.labels = source.class_names = None
    numbers = choose(len(source), options.subset, options.seed)
    made = converted(source, dest, numbers, options)
    if options.list:
        write_atomic(dest.with_suffix(".txt"), "".join(f"{source.name(number)}\n" for number in made.numbers))
    for line in summary(source, dest, made):
        click.echo(line)


def converted(source: Source, dest: Path, numbers: Sequence[int], options: Options) -> Converted:
    form = Form(options.resolution, options.crop, options.filter)
    workers = min(options.workers or usable_cpus(), max(len(numbers) // 64, 1))  # a process takes a second to start
    with tqdm(total=len(numbers), unit="img", disable=None) as bar:
        return convert(source, dest, form, numbers, workers=workers, skip_broken=options.skip_broken, told=bar.update)


def summary(source: Source, dest: Path, made: Converted) -> list[str]:
    lines = [f"{dest}: {len(made.numbers)} images of {made.side}x{made.side}, {dest.stat().st_size / 2**20:.1f} MB"]
    if source.labels is not None:
        names = "" if source.class_names is None else f" ({', '.join(source.class_names[:12])})"
        vectors = isinstance(source.labels[0], Sequence)
        lines.append(f"labels: {'vectors' if vectors else f'{max(source.labels) + 1} classes'}{names}")
    if source.captions is not None:
        lines.append(f"captions: {sum(map(bool, source.captions))} in the source")
    lines += [f"left out, cannot be read: {source.name(number)}" for number in made.left_out]
    return lines


@main.command("validate", help="Name every broken image, odd size and missing label. Exit status 2 if there are any.")
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--any-size", is_flag=True, help="Sizes do not matter: --resolution will be given")
@script
def validate_command(path: Path, any_size: bool) -> None:
    checked = check_images(path.expanduser(), any_size)
    for problem in checked.problems:
        click.echo(problem)
    sizes = ", ".join(f"{count} of {width}x{height}" for (width, height), count in checked.sizes.most_common(5))
    if checked.problems:
        found = f"{len(checked.problems)} problems in {checked.count} images ({sizes or 'none readable'})"
        raise UserError(f"'{path}': {found}")
    click.echo(f"{path}: {checked.count} images, all of {sizes}, nothing wrong")


if __name__ == "__main__":
    main()
