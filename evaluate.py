"""Measure a snapshot: one JSON line a metric."""

from __future__ import annotations

import json
import sys

import click
from tqdm import tqdm

from dnnlib.cli import user_errors
from torch_utils.device import pick_device
from training.checkpoint import load_snapshot
from training.dataset import ImageDataset
from training.fewshot_sets import resolve_data
from training.metrics import METRICS, evaluate, load_detector, pixel_source


@click.command(context_settings={"show_default": True, "max_content_width": 120})
@click.option("--network", required=True, metavar="SNAPSHOT", help="network-snapshot-*.safetensors, for its G_ema")
@click.option("--data", required=True, metavar="ZIP|DIR|NAME", help="The real images")
@click.option("--detector", required=True, metavar="PATH", help="TorchScript feature network")
@click.option("--metrics", default="kid5k_full", metavar="NAME,...", help=f"Of {', '.join(METRICS)}")
@click.option("--num", type=int, metavar="N", help="Generate N images instead of the number in the metric's name")
@click.option("--resolution", type=int, metavar="PIXELS", help="Crop and resize the real images")
@click.option("--mirror", is_flag=True, help="Also compare with every real image flipped")
@click.option("--seed", default=0, metavar="N", help="Seed of the generated images")
@click.option("--batch", type=click.IntRange(min=1), default=64, metavar="N", help="Images at a time")
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
@user_errors
def main(
    network: str,
    data: str,
    detector: str,
    metrics: str,
    num: int | None,
    resolution: int | None,
    mirror: bool,
    seed: int,
    batch: int,
    device: str,
) -> None:
    """Distances between the images of a trained generator and real ones.

    Figures compare only where detector, numbers of images and data are the same; each line says what they were.
    """
    where = pick_device(device)
    features = load_detector(detector, where)
    G = load_snapshot(network, where).G_ema
    dataset = ImageDataset(resolve_data(data), resolution=resolution, use_labels=G.c_dim > 0, mirror=mirror)
    source = pixel_source(G, dataset, seed=seed, device=where)
    with tqdm(unit="img", file=sys.stderr, disable=None) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.set_description(f"{what} images")
            bar.total, bar.n = total, done
            bar.refresh()

        names = [name.strip() for name in metrics.split(",")]
        results = evaluate(source, dataset, features, names, num_fakes=num, batch=batch, seed=seed, on_progress=show)
    for result in results:
        click.echo(json.dumps(result.to_json()))


if __name__ == "__main__":
    main()
