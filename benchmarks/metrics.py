"""How much of a detector's own throughput do the metrics reach?

    python -m benchmarks.metrics --data=ZIP --detector=PATH --count=5000

Two ways, in turns, in one process: the detector alone on one batch over and over; and FID of the images of a folder
(decoded before) against a cached reference.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

import click
import numpy as np
import torch

from benchmarks.host import wait
from torch_utils.device import pick_device
from torch_utils.ranks import Job
from training.cli import script
from training.data.dataset import ImageDataset
from training.data.fewshot_sets import resolve_data
from training.metrics import EvaluationOptions, ImageFolder, Reals, evaluate, load_detector, parse_metrics


class Repeated(ImageFolder):
    """A folder's images over and over, `count` of them."""

    def jobs(self, count: int, batch: int) -> Iterator[Job]:
        pixels = torch.from_numpy(self.dataset.gather(np.arange(len(self.dataset)))[0])
        for first in range(0, count, batch):
            rows = torch.arange(first, min(first + batch, count)) % len(pixels)
            yield Job(len(rows), functools.partial(pixels.__getitem__, rows))


@click.command()
@click.option("--data", default="demo", show_default=True)
@click.option("--detector", default="demo", show_default=True)
@click.option("--resolution", type=int)
@click.option("--count", default=5000, show_default=True, help="Images")
@click.option("--batch", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
@script
def main(data: str, detector: str, resolution: int | None, count: int, batch: int, rounds: int, device: str) -> None:
    where = pick_device(device)
    network = load_detector(detector, where)
    dataset = ImageDataset(resolve_data(data), resolution=resolution)
    fakes, reals, metrics = Repeated(dataset), Reals(dataset), parse_metrics(f"fid{count}_full")
    pixels = next(iter(fakes.jobs(batch, batch))).make()

    def alone() -> None:
        for _ in range(count // batch):
            network(pixels)
        wait(where)

    def measured() -> None:
        evaluate(fakes, reals, network, metrics, EvaluationOptions(batch=batch))

    evaluate(
        fakes, reals, network, parse_metrics("fid64_full"), EvaluationOptions(batch=batch)
    )  # caches the reference; warms up
    times: dict[str, list[float]] = {"detector alone": [], "FID": []}
    for _ in range(rounds):
        for name, action in (("detector alone", alone), ("FID", measured)):
            times[name].append(_seconds(action))
    best = {name: min(values) for name, values in times.items()}
    per_image = {"detector alone": best["detector alone"] / (count // batch * batch), "FID": best["FID"] / count}
    for name, values in times.items():
        click.echo(f"{name:<15} {min(values):7.2f} s  {1 / per_image[name]:8.0f} images/s   all: {values}")
    click.echo(f"FID reaches {per_image['detector alone'] / per_image['FID']:.1%} of the detector's throughput")


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
