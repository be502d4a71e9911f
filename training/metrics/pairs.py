"""Generated images beside their nearest training images, to spot copies by eye."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from dnnlib.files import write_atomic
from training.data.dataset import ImageDataset
from training.metrics.detectors import Detector
from training.metrics.evaluation import Fakes
from training.metrics.neighbours import nearest
from training.metrics.samples import BATCH, real_sample
from training.report.image_grid import save_image

__all__ = ["write_nearest"]

_COLUMNS, _ROWS = 16, 4  # pairs in the picture


def write_nearest(
    folder: Path, fakes: Fakes, train: ImageDataset, detector: Detector, count: int, batch: int = BATCH
) -> None:
    """Writes nearest.csv (one line per fake: its number, its nearest training image, their distance) and nearest.png.

    The picture shows the pairs that are closest, closest first, the generated image above its training image; no
    training image more than once.

    Args:
        folder: made if need be.
        fakes: their source.
        train: the training images.
        detector: of the features that are compared.
        count: fakes.
        batch: images at a time.
    """
    known = real_sample(detector, train, keep=True, batch=batch).rows
    table = io.StringIO()
    lines = csv.writer(table)
    lines.writerow(["fake", "training_image", "distance"])
    closest: dict[int, tuple[float, np.ndarray]] = {}  # training image: distance and pixels of a fake
    number = 0
    for pixels in (job.make() for job in fakes.jobs(count, batch)):
        neighbours = nearest(detector(pixels).cpu(), known)
        for fake, index, distance in zip(pixels, neighbours.index.tolist(), neighbours.distance.tolist(), strict=True):
            lines.writerow([number, train.file_name(index), f"{distance:.6g}"])
            number += 1
            if index not in closest or distance < closest[index][0]:
                closest[index] = distance, fake.cpu().numpy()
        closest = dict(sorted(closest.items(), key=lambda item: item[1][0])[: _COLUMNS * _ROWS])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "nearest.csv", table.getvalue())
    below, _ = train.gather(np.array(list(closest)))
    save_image(_picture(np.stack([fake for _, fake in closest.values()]), below), folder / "nearest.png")


def _picture(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """[n, 3, R, R] twice -> [H, W, 3]: rows of pairs, a white line between them."""
    count, _, side, _ = above.shape
    rows = -(-count // _COLUMNS)
    height = 2 * side + 2
    picture = np.full((rows * height, min(count, _COLUMNS) * side, 3), 255, np.uint8)
    for place, pair in enumerate(np.concatenate([above, below], axis=2)):
        row, column = divmod(place, _COLUMNS)
        picture[row * height : row * height + 2 * side, column * side : (column + 1) * side] = pair.transpose(1, 2, 0)
    return picture
