"""docs/demo.png: training drawings and samples of a run of the demo. Drawn by `python -m docs.demo RUN_FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from dnnlib.files import files_by_kimg
from training.report.image_grid import GRIDS

TILE, COLUMNS, ROWS = 32, 8, 4  # of the grids that a run writes, from their upper left corner
SCALE, GAP = 2, 32


def draw(run: Path, path: Path) -> None:
    """Training images on the left, the latest samples on the right."""
    samples = files_by_kimg(run, *GRIDS)
    grids = [run / "reals.png", samples[max(samples)]]
    width, height = COLUMNS * TILE * SCALE, ROWS * TILE * SCALE
    picture = Image.new("RGB", (2 * width + GAP, height), "white")
    for column, grid in enumerate(grids):
        with Image.open(grid) as image:
            corner = image.convert("RGB").crop((0, 0, COLUMNS * TILE, ROWS * TILE))
        picture.paste(corner.resize((width, height), Image.Resampling.NEAREST), (column * (width + GAP), 0))
    picture.save(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("demo.png"))
