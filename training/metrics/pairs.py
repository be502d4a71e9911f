"""Generated images beside their nearest training images, to spot copies by eye."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from torch import Tensor

from dnnlib.files import write_atomic
from training.data.dataset import ImageDataset
from training.metrics.detectors import Detector
from training.metrics.evaluation import Fakes
from training.metrics.neighbours import nearest
from training.metrics.samples import BATCH, real_sample
from training.report.image_grid import save_image

__all__ = ["Closest", "write_nearest"]

_COLUMNS, _ROWS = 16, 4  # pairs in the picture


class Closest:
    """The fakes that are nearest to a training image, no training image more than once; none else is kept.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: dict[int, tuple[float, np.ndarray]] = {}

    def add(self, image: int, distance: float, fake: Tensor) -> None:
        """
        Args:
            image: its nearest training image.
            distance: to that.
            fake: pixels uint8 [3, R, R].
        """
        if image not in self._found or distance < self._found[image][0]:
            self._found[image] = distance, fake.cpu().numpy()
        if len(self._found) > 2 * self._count:
            self._found = self.found()

    def found(self) -> dict[int, tuple[float, np.ndarray]]:
        """Distance and pixels of the fakes by training image, the closest first."""
        return dict(sorted(self._found.items(), key=lambda item: item[1][0])[: self._count])


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
    closest = Closest(_COLUMNS * _ROWS)
    number = 0
    for pixels in (job.make() for job in fakes.jobs(count, batch)):
        neighbours = nearest(detector(pixels).cpu(), known)
        for fake, index, distance in zip(pixels, neighbours.index.tolist(), neighbours.distance.tolist(), strict=True):
            lines.writerow([number, train.file_name(index), f"{distance:.6g}"])
            number += 1
            closest.add(index, distance, fake)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "nearest.csv", table.getvalue())
    found = closest.found()
    below, _ = train.gather(np.array(list(found)))
    save_image(_picture(np.stack([fake for _, fake in found.values()]), below), folder / "nearest.png")


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
