"""Samples of several runs side by side, not selected: the first tiles of grids that training wrote.

python -m studies.samples --out=docs/evidence-drawings.png "no distillation=RUN/fakes000120.png" ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

from dnnlib.errors import UserError
from training.cli import script

__all__ = ["side_by_side"]

CAPTION, GAP = 22, 12  # pixels


def side_by_side(grids: Mapping[str, Image.Image], side: int = 256, columns: int = 3) -> Image.Image:
    """The top left corner of each grid below its name, three grids in a row.

    Args:
        grids: RGB images by name, of tiles without space between them.
        side: of a corner in pixels, 8 tiles of 32; where a grid is smaller, all corners are.
        columns: grids in a row.
    """
    width, height = (min(side, *(grid.size[axis] for grid in grids.values())) for axis in range(2))
    rows = -(-len(grids) // columns)
    columns = min(columns, len(grids))
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + CAPTION + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (name, grid) in enumerate(grids.items()):
        x, y = place % columns * (width + GAP), place // columns * (height + CAPTION + GAP)
        pen.text((x, y + 2), name, "black", font=font)
        sheet.paste(grid.crop((0, 0, width, height)), (x, y + CAPTION))
    return sheet


@click.command(help=__doc__)
@click.argument("grids", metavar="NAME=PNG...", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="PNG")
@script
def main(grids: tuple[str, ...], out: Path) -> None:
    shown = {}
    for given in grids:
        name, equals, path = given.partition("=")
        if not equals:
            raise UserError(f"{given}: expected NAME=PNG, a caption and a grid that training wrote")
        try:
            shown[name] = Image.open(path).convert("RGB")
        except OSError as error:
            raise UserError(f"{given}: cannot be read as an image: {error}") from error
    side_by_side(shown).save(out)


if __name__ == "__main__":
    main()
