"""Measure generated images: one JSON line a metric.

\b
    python evaluate.py --network=SNAPSHOT --data=ZIP --metrics=fid50k_full,kid50k_full
    python evaluate.py --fakes=DIR --data=ZIP --metrics=kid1k_full
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from dnnlib.errors import UserError
from dnnlib.files import require_writable
from torch_utils.device import pick_device
from torch_utils.ranks import joined_ranks, local_device
from training.checkpoint import load_snapshot
from training.cli import script
from training.data.dataset import ImageDataset
from training.data.fewshot_sets import resolve_data
from training.data.image_sets import ImageOptions, open_reference, open_training_set
from training.metrics import (
    EXAMPLES,
    KINDS,
    GeneratedImages,
    ImageFolder,
    MetricResult,
    Reals,
    evaluate,
    load_detector,
    load_perceptual,
    parse_metrics,
)
from training.metrics.detectors import INCEPTION, VGG
from training.metrics.pairs import write_nearest
from training.metrics.samples import BATCH, Progress

_ABOUT = "\n".join(f"    {kind.form.format(n='N'):<15} {kind.about}" for kind in KINDS)


@click.command(
    help=f"{__doc__}\n\b\nMetrics; N is a number of generated images, such as 50k or 500:\n{_ABOUT}",
    context_settings={"show_default": True, "max_content_width": 120},
)
@click.option("--network", metavar="SNAPSHOT", help="network-snapshot-*.safetensors, for its G_ema")
@click.option("--fakes", metavar="ZIP|DIR", help="Generated images of any origin, instead of a network")
@click.option(
    "--data",
    required=True,
    metavar="ZIP|DIR|NAME",
    help="The images it was trained on; of a run with --holdout or --subset all, config.json beside the snapshot says "
    "which it took",
)
@click.option(
    "--reference",
    metavar="ZIP|DIR|NAME",
    help="Compare with these images instead of --data, such as the whole set that the training images are a part of "
    "[default: with --data=demo, fresh drawings]",
)
@click.option("--detector", default=INCEPTION, metavar="NAME|PATH", help="inception, a TorchScript file, or a teacher")
@click.option("--lpips", default=VGG, metavar="NAME|PATH", help="Network of path lengths: vgg16 or a TorchScript file")
@click.option("--metrics", default="kid5k_full", metavar="NAME,...", help=f"Such as {', '.join(EXAMPLES)}")
@click.option(
    "--nearest", metavar="DIR", help="Also write each fake's nearest training image (nearest.csv, nearest.png)"
)
@click.option("--resolution", type=int, metavar="PIXELS", help="Crop and resize all images to this")
@click.option("--mirror", is_flag=True, help="Also compare with every real image flipped")
@click.option("--seed", default=0, metavar="N", help="Seed of the generated images")
@click.option("--batch", type=click.IntRange(min=1), default=BATCH, metavar="N", help="Images at a time")
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
@script
def main(
    network: str | None,
    fakes: str | None,
    data: str,
    reference: str | None,
    detector: str,
    lpips: str,
    metrics: str,
    nearest: str | None,
    resolution: int | None,
    mirror: bool,
    seed: int,
    batch: int,
    device: str,
) -> None:
    if (network is None) == (fakes is None):
        raise UserError("give either --network=SNAPSHOT or --fakes=DIR, the generated images to measure")
    wanted = parse_metrics(metrics)
    if nearest is not None:
        require_writable(nearest, flag="--nearest")
    where = pick_device(local_device(device))
    found = load_detector(detector, where)
    G = None if network is None else load_snapshot(network, where).G_ema
    use_labels = G is not None and G.c_dim > 0

    options = dataclasses.replace(
        ImageOptions(data, resolution, use_labels, mirror=mirror, reference=reference),
        **({} if network is None else chosen_by_run(Path(network), data)),
    )
    train = open_training_set(options)
    reals = Reals(open_reference(options, train, mirror), train)
    paths = any(metric.of_paths for metric in wanted)
    perceptual = load_perceptual(lpips, where) if paths and G is not None else None
    if G is not None:
        source: GeneratedImages | ImageFolder = GeneratedImages(G, train, seed=seed, device=where)
    else:
        assert fakes is not None
        source = ImageFolder(ImageDataset(resolve_data(fakes, "--fakes"), resolution=train.resolution, flag="--fakes"))
    with joined_ranks() as ranks, _progress(ranks.is_main) as show:
        results = evaluate(
            source, reals, found, wanted, batch=batch, seed=seed, perceptual=perceptual, ranks=ranks, on_progress=show
        )
    if not ranks.is_main:
        return
    if nearest is not None:
        count = max((metric.num_fake for metric in wanted), default=len(train))
        write_nearest(Path(nearest), source, train, found, count, batch)
    for result in results:
        click.echo(json.dumps(result.to_json()))
    if sys.stdout.isatty():  # for people: figures that compare stand together, under what they were measured by
        click.echo(_table(results), err=True)


def chosen_by_run(network: Path, data: str) -> dict[str, Any]:
    """--subset, --holdout and --seed of the snapshot's run, by the config.json beside it.

    Empty where that is missing, or is of a run on other images.
    """
    try:
        saved = json.loads((network.parent / "config.json").read_text(encoding="utf-8"))
        if saved["data"] == data or os.path.samefile(saved["data"], data):
            return {name: saved[name] for name in ("subset", "holdout", "seed")}
    except (OSError, ValueError, KeyError, TypeError):  # a snapshot that was moved, or somebody else's file
        pass
    return {}


def _table(results: Sequence[MetricResult]) -> str:
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
