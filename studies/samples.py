"""Samples of several runs side by side, not selected: the first 8 x 8 tiles of grids that training wrote.

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


def side_by_side(grids: Mapping[str, Image.Image], tiles: int = 8, size: int = 32, columns: int = 3) -> Image.Image:
    """The first `tiles` x `tiles` tiles of each grid below its name, three grids in a row.

    Args:
        grids: RGB images of tiles without space between them, by name; at least `tiles` * `size` pixels wide and high.
        tiles: per side.
        size: of a tile in pixels.
        columns: grids in a row.

    Raises:
        ValueError: a grid is smaller.
    """
    side = tiles * size
    for name, grid in grids.items():
        if min(grid.size) < side:
            raise ValueError(f"{name}: the grid has {grid.width} x {grid.height} pixels, {side} x {side} are needed")
    rows = -(-len(grids) // columns)
    columns = min(columns, len(grids))
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + CAPTION + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (name, grid) in enumerate(grids.items()):
        x, y = place % columns * (side + GAP), place // columns * (side + CAPTION + GAP)
        pen.text((x, y + 2), name, "black", font=font)
        sheet.paste(grid.crop((0, 0, side, side)), (x, y + CAPTION))
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
    try:
        side_by_side(shown).save(out)
    except ValueError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    main()
