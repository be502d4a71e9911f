"""Style mixing: coarse layers of one seed's w, fine ones of another's.

Source: Karras et al. 2019, "A Style-Based Generator Architecture", section 3.1 and figure 3.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib.cli import parse_seeds
from dnnlib.errors import UserError
from dnnlib.files import require_writable, write_atomic
from kd_plugin.config.schema import option
from training.generation.files import GRID, INDEX, require_picture, save_picture
from training.generation.images import Generated
from training.generation.inputs import (
    TruncatedOptions,
    class_option,
    open_source,
    psi_option,
    require_w,
    the_class,
    the_psi,
)
from training.report.image_grid import arrange, to_pixels

__all__ = ["MixingOptions", "mix_styles"]

MOST_SEEDS = 64  # in a row or a column of the grid


@dataclass(frozen=True, kw_only=True)
class MixingOptions(TruncatedOptions):
    """The flags of `style-mixing`."""

    rows: str = option(MISSING, "Seeds of the rows, such as 85,100: coarse layers", metavar="SEEDS", group="Images")
    cols: str = option(MISSING, "Seeds of the columns: the layers of --styles", metavar="SEEDS")
    styles: str | None = option(
        None,
        "Layers that are taken from the columns, such as 8-13",
        metavar="LAYERS",
        shown_default="the finer half",
    )
    class_: str | None = class_option()
    trunc: str = psi_option()
    outdir: str = option(
        "out", "Output folder for 85-55.png ..., grid.png and index.json", metavar="DIR", group="Files"
    )


@torch.no_grad()
def mix_styles(options: MixingOptions) -> Generated:
    """
    Raises:
        UserError: a wrong option, or a network without w.
    """
    rows, columns = (_seeds(text, flag) for text, flag in ((options.rows, "--rows"), (options.cols, "--cols")))
    psi = the_psi(options.trunc)
    source = open_source(options)
    G: Any = source.G
    require_w(G, "style-mixing")
    label = source.label(the_class(G, options.class_, source.class_names))
    layers = _layers(options.styles, G.num_ws)
    require_picture(G.img_channels)
    require_writable(options.outdir)

    def ws_of(seeds: list[int]) -> torch.Tensor:
        c = label.expand(len(seeds), -1)
        ws: torch.Tensor = G.mapping(source.z(seeds), c, psi, options.trunc_cutoff, skip_w_avg_update=True)
        return ws

    of_rows, of_columns = ws_of(rows), ws_of(columns)
    top = to_pixels(G.synthesis(of_columns, options.noise_mode))
    tiles = [np.zeros_like(top[0]), *top]
    folder = Path(options.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    files, index = [], []
    for row, w in zip(rows, of_rows, strict=True):
        ws = w.repeat(len(columns) + 1, 1, 1)  # the row's own image, and one for each column
        ws[1:, layers] = of_columns[:, layers]
        pixels = to_pixels(G.synthesis(ws, options.noise_mode))
        tiles.extend(pixels)
        for column, image in zip(columns, pixels[1:], strict=True):
            how = {"row": row, "column": column, "styles": layers, "psi": psi}
            files.append(folder / f"{row}-{column}.png")
            save_picture(image, files[-1], how)
            index.append({"file": files[-1].name, **how})
    grid = folder / f"{GRID}.png"
    save_picture(
        arrange(tiles, len(columns) + 1), grid, {"rows": rows, "columns": columns, "styles": layers, "psi": psi}
    )
    write_atomic(folder / INDEX, json.dumps({"network": options.network, "tiles": index}, indent=1))
    return Generated(folder, files, grid)


def _seeds(text: str, flag: str) -> list[int]:
    seeds = parse_seeds(text, flag)
    if len(seeds) > MOST_SEEDS:
        raise UserError(f"{flag}: {len(seeds)} seeds were given, at most {MOST_SEEDS} fit into the grid")
    return seeds


def _layers(text: str | None, num_ws: int) -> list[int]:
    """
    Raises:
        UserError: no layers of this network.
    """
    if text is None:
        return list(range(num_ws // 2, num_ws))
    try:
        layers = parse_seeds(text, "--styles")
    except UserError:
        layers = [num_ws]
    if max(layers) >= num_ws:
        raise UserError(f"--styles: '{text}' was given; the network has the layers 0 to {num_ws - 1}, give e.g. 0-3")
    return layers
