"""Measure generated images; prints one line of JSON per metric.

\b
    python evaluate.py --network=SNAPSHOT --data=ZIP --metrics=fid50k_full,kid50k_full
    python evaluate.py --fakes=DIR --data=ZIP --metrics=kid1k_full
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from dnnlib.errors import UserError
from dnnlib.files import require_writable
from kd_plugin.config.click_flags import GroupedCommand, add_flags, code_option, options_from
from kd_plugin.config.ranges import SEED, Range
from kd_plugin.config.schema import option
from torch_utils.device import pick_device
from torch_utils.ranks import joined_ranks, local_device
from training.checkpoint import load_snapshot
from training.cli import arguments_of, from_python, function, script, warn
from training.config import SIZE
from training.data.dataset import ImageDataset
from training.data.fewshot_sets import resolve_data
from training.data.image_sets import ImageOptions, open_reference, open_training_set
from training.metrics import (
    EXAMPLES,
    FAMILIES,
    EvaluationOptions,
    GeneratedImages,
    ImageFolder,
    MetricResult,
    Reals,
    load_detector,
    load_perceptual,
    parse_metrics,
)
from training.metrics import evaluate as measure
from training.metrics.detectors import INCEPTION, VGG
from training.metrics.pairs import write_nearest
from training.metrics.samples import BATCH, Progress
from training.networks import GeneratorNetwork
from training.report.describe import repetitions, skipped
from training.resume import CONFIG, read_config

_ABOUT = "\n".join(f"    {family.form.format(n='N'):<15} {family.about}" for family in FAMILIES)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this command."""

    network: str | None = option(
        None, "A network-snapshot-*.safetensors; its G_ema is measured", metavar="SNAPSHOT", group="Images"
    )
    fakes: str | None = option(None, "Measure these generated images instead of a network", metavar="ZIP|DIR")
    data: str = option(
        MISSING,
        "The images it was trained on. After a run with --holdout or --subset, give the whole set: config.json beside "
        "the snapshot says which images were used",
        metavar="ZIP|DIR|NAME",
    )
    reference: str | None = option(
        None,
        "Compare with these images instead of --data, for example the full set that the training images were taken "
        "from",
        metavar="ZIP|DIR|NAME",
        shown_default="--data; fresh drawings with --data=demo",
    )
    resolution: int | None = option(
        None, "Crop and resize all images to this", Range(4, 2**14), metavar="PIXELS", shown_default="the images'"
    )
    mirror: bool = option(False, "Add the mirror image of every real image")
    metrics: str = option(
        "kid5k_full", f"Metrics, such as {', '.join(EXAMPLES)}", metavar="NAME,...", group="Measurement"
    )
    detector: str = option(INCEPTION, "inception, a TorchScript file, or a teacher", metavar="NAME|PATH")
    lpips: str = option(VGG, "Network for path lengths: vgg16 or a TorchScript file", metavar="NAME|PATH")
    nearest: str | None = option(
        None, "Also write each fake's nearest training image (nearest.csv, nearest.png)", metavar="DIR"
    )
    seed: int = option(0, "Seed of the generated images", SEED, metavar="N")
    batch: int = option(BATCH, "Images per batch", SIZE, metavar="N")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")


@click.command(
    cls=GroupedCommand,
    help=f"{__doc__}\n\b\nMetrics; N is a number of generated images, such as 50k or 500:\n{_ABOUT}",
    context_settings={"max_content_width": 120},
)
@add_flags(Options)
@code_option
@script
def main(**flags: Any) -> None:
    results, notes, write_rest = _evaluate(options_from(Options, flags))
    for line in notes:
        click.echo(f"Note: {line}", err=True)
    for result in results:
        click.echo(json.dumps(result.to_json()))
    if results and sys.stdout.isatty():
        click.echo(_table(results), err=True)
    write_rest()  # after the figures: it may fail


@function(lambda: arguments_of(Options))
def evaluate(**options: Any) -> list[MetricResult]:
    """What the command does, from Python.

    Args:
        options: its flags, with _ for -; see `Options`.

    Returns:
        One result for each metric. What is worth a note is a Python warning.

    Raises:
        UserError: as the command; names the argument.
        RunFailed: not enough memory.
    """
    results, notes, write_rest = _evaluate(from_python(Options, options))
    warn(notes)
    write_rest()
    return results


def _evaluate(options: Options) -> tuple[list[MetricResult], list[str], Callable[[], None]]:
    """The results, notes on them, and what writes the files of --nearest; nothing in all processes but the first."""
    if (options.network is None) == (options.fakes is None):
        raise UserError("give either --network=SNAPSHOT or --fakes=DIR, the generated images to measure")
    metrics = parse_metrics(options.metrics)
    if not metrics and options.nearest is None:
        raise UserError(f"--metrics={options.metrics}: nothing is to be done; name a metric, or give --nearest")
    if options.nearest is not None:
        require_writable(options.nearest, flag="--nearest")
    device = pick_device(local_device(options.device))
    detector = load_detector(options.detector, device)
    G = None if options.network is None else load_snapshot(options.network, device).G_ema
    train, reals = open_reals(options, use_labels=G is not None and G.c_dim > 0)
    needs_perceptual = G is not None and any(metric.of_paths for metric in metrics)
    fakes = open_fakes(options, G, train, device)
    with joined_ranks() as ranks, _progress(ranks.is_main) as show:
        how = EvaluationOptions(
            batch=options.batch,
            seed=options.seed,
            perceptual=load_perceptual(options.lpips, device) if needs_perceptual else None,
            ranks=ranks,
            on_progress=show,
        )
        results = measure(fakes, reals, detector, metrics, how)
    if not ranks.is_main:
        return [], [], lambda: None

    def write_rest() -> None:
        if options.nearest is not None:
            count = max((metric.num_fake for metric in metrics), default=len(train))
            write_nearest(Path(options.nearest), fakes, train, detector, count, options.batch)

    return results, [*remarks(fakes, results), *remarks_on_reals(reals)], write_rest


def open_reals(options: Options, use_labels: bool) -> tuple[ImageDataset, Reals]:
    """The training images, and what the generated images are compared with."""
    images = ImageOptions(
        options.data, options.resolution, use_labels, mirror=options.mirror, reference=options.reference
    )
    train = open_training_set(images)
    if options.network is not None and (chosen := chosen_by_run(Path(options.network), options.data, train)):
        train = open_training_set(dataclasses.replace(images, **chosen))
    return train, Reals(open_reference(images, train, options.mirror), train)


def open_fakes(
    options: Options, G: GeneratorNetwork | None, train: ImageDataset, device: torch.device
) -> GeneratedImages | ImageFolder:
    if G is not None:
        return GeneratedImages(G, train, seed=options.seed, device=device)
    assert options.fakes is not None
    return ImageFolder(
        ImageDataset(resolve_data(options.fakes, "--fakes"), resolution=train.resolution, flag="--fakes")
    )


def remarks(fakes: GeneratedImages | ImageFolder, results: Sequence[MetricResult]) -> list[str]:
    """What of --fakes was not measured, and which distances are none."""
    lines = [
        f"{result.metric} is not above 0 by more than its standard error: no difference was measured"
        for result in results
        if result.value <= result.results.get(f"{result.metric}_stderr", -math.inf)
    ]
    if isinstance(fakes, ImageFolder):
        held = len(fakes.dataset)
        used = max((result.num_fake for result in results), default=held)
        if held > used:
            lines.append(f"--fakes holds {held} images; no metric uses more than the first {used}, by name")
        if fakes.dataset.skipped:
            lines.append(skipped(fakes.dataset, "other files of --fakes"))
    return lines


def remarks_on_reals(reals: Reals) -> list[str]:
    """Repeated images of each set, where looking for them costs nothing."""
    sets = {dataset.path: dataset for dataset in (reals.train, reals.reference) if dataset is not None}
    return [
        f"{path}: {repetitions(dataset)}"
        for path, dataset in sets.items()
        if dataset.fits_in_memory and dataset.repeated
    ]


def chosen_by_run(network: Path, data: str, dataset: ImageDataset) -> dict[str, Any]:
    """--subset, --holdout and --seed of the snapshot's run, from the config.json beside it.

    Empty if that file is missing or belongs to a run on other images, wherever they lay.
    """
    try:
        saved = read_config(network.parent / CONFIG)
        same = saved.options["data"] == data  # all that version 0.1 knows
        if "data" in saved.content:
            same = saved.content["data"] == dataset.source_fingerprint
        if same:
            return {name: saved.options[name] for name in ("subset", "holdout", "seed")}
    except (UserError, KeyError):  # the snapshot was moved, or the file is not a run's
        pass
    return {}


def _table(results: Sequence[MetricResult]) -> str:
    """Values that can be compared with each other stand together, under the conditions they share."""
    groups: dict[str, list[str]] = {}
    for result in results:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in result.results.items())
        groups.setdefault(result.conditions(), []).append(f"    {figures}")
    return "\n".join(line for conditions, lines in groups.items() for line in (conditions, *lines))


@contextmanager
def _progress(shown: bool) -> Iterator[Progress]:
    with tqdm(unit="img", file=sys.stderr, disable=None if shown else True) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.set_description(f"{what} images")
            bar.total, bar.n = total, done
            bar.refresh()

        yield show


if __name__ == "__main__":
    main()
