"""Images of seeds or of given w, as files with a grid, as arrays, or as a zip."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.cli import MOST_SEEDS, count_seeds, parse_seeds
from dnnlib.errors import UserError
from dnnlib.files import require_free, require_writable, write_atomic
from kd_plugin.config.ranges import AT_LEAST_1, Range
from kd_plugin.config.schema import option
from training.config import SIZE
from training.generation.files import FORMATS, GRID, INDEX, MOST_GRID_PIXELS, require_picture, save_picture, write_zip
from training.generation.inputs import Source, TruncatedOptions, class_indices, open_source, read_ws, truncations
from training.report.image_grid import arrange, to_pixels

__all__ = ["Generated", "ImagesOptions", "make_images"]

COLUMNS, OUTDIR = 8, "out"
LONGEST_CLASS = 40  # characters of a class in a file's name


@dataclass(frozen=True, kw_only=True)
class ImagesOptions(TruncatedOptions):
    """The flags of `images`."""

    seeds: str | None = option(None, "Seeds, such as 0-31 or 1,5,7-9", metavar="SEEDS", group="Images")
    count: int | None = option(
        None, "The seeds 0 to N-1, for example 50000 for metrics", Range(1, MOST_SEEDS), metavar="N"
    )
    projected_w: str | None = option(None, "Images of the w in this file, as `project` writes it", metavar="FILE.npz")
    class_: str | None = option(
        None,
        "Classes of a conditional network, by name or index: dog, 0,2 or all. With --seeds each seed has an image in "
        "each of them, with --count they take turns",
        key="class",
        metavar="NAME|INDEX,...",
        shown_default="none; with --count all",
    )
    trunc: str = option("1", "Truncation psi; 1: none; 0: all images are equal. Several: 0.5,0.7,1", metavar="PSI,...")
    batch: int = option(16, "Images per batch", SIZE, metavar="N")
    outdir: str | None = option(
        None,
        "Output folder for seed0000.png ..., grid.png and index.json",
        metavar="DIR",
        group="Files",
        shown_default=OUTDIR,
    )
    out: str | None = option(None, "Write a zip of PNGs instead, as train.py reads them", metavar="FILE.zip")
    format: str = option("png", "Of the images; npz: one file with pixels, seeds and w", choices=FORMATS)
    columns: int | None = option(
        None,
        "Columns of the grid",
        AT_LEAST_1,
        metavar="N",
        shown_default=f"{COLUMNS}; with several psi one for each, with several classes one for each seed",
    )


@dataclass(frozen=True)
class Generated:
    """The files that were written.

    folder: that holds them, or the zip.
    images: in the order of the grid; none in a zip or an .npz.
    grid: None if there is none.
    """

    folder: Path
    images: list[Path]
    grid: Path | None


@dataclass(frozen=True)
class Tile:
    """One image: of a seed, or of row `number` of a file of w."""

    number: int
    seed: int | None
    psi: float
    label: int | None
    stem: str


def make_images(options: ImagesOptions) -> tuple[Generated, list[str]]:
    """What was written, and notes on it.

    Raises:
        UserError: an option that is wrong, or has no effect.
        OSError: something cannot be written.
    """
    _require_one_source(options)
    _require_effect(options)
    seeds = _seeds(options)
    psis = truncations(options.trunc)
    source = open_source(options)
    classes = class_indices(source.G, _classes(options, source), source.class_names)
    ws = None if options.projected_w is None else read_ws(options.projected_w, source.G, source.device)
    tiles = _tiles(source, seeds, psis, classes, options.count is not None) if ws is None else _tiles_of(ws)
    sampler = _Sampler(source, options, ws)
    if options.format != "npz":
        require_picture(source.G.img_channels, None if options.out else options.format)
    if options.out is not None:
        return _zip(options, tiles, sampler), []
    folder = Path(options.outdir or OUTDIR)
    require_writable(folder)
    _require_no_folders(
        folder, {*(f"{tile.stem}.{options.format}" for tile in tiles), f"{GRID}.{options.format}", INDEX}
    )
    folder.mkdir(parents=True, exist_ok=True)
    columns = options.columns or _columns(psis, classes, len(tiles))
    made, notes = _folder(options, folder, tiles, sampler, min(columns, len(tiles)))
    return made, [*_remarks(options, psis, seeds), *notes, *_earlier(folder, made)]


def _require_one_source(options: ImagesOptions) -> None:
    given = [
        flag
        for flag, value in (
            ("--seeds", options.seeds),
            ("--count", options.count),
            ("--projected-w", options.projected_w),
        )
        if value is not None
    ]
    if len(given) != 1:
        came = " and ".join(given) or "none"
        raise UserError(f"give one of --seeds, --count and --projected-w; {came} of them was given")


def _require_effect(options: ImagesOptions) -> None:
    """
    Raises:
        UserError: an option that changes nothing.
    """
    if options.out is not None and not options.out.endswith(".zip"):
        raise UserError(f"--out: '{options.out}' was given, its name must end with .zip; --outdir names a folder")
    in_zip = options.out is not None
    for flag, given, unused, why in (
        ("--class", options.class_ is not None, options.projected_w is not None, "has no effect on --projected-w"),
        ("--trunc", options.trunc != "1", options.projected_w is not None, "has no effect on --projected-w"),
        (
            "--trunc-cutoff",
            options.trunc_cutoff is not None,
            options.projected_w is not None,
            "has no effect on --projected-w",
        ),
        (f"--format={options.format}", options.format != "png", in_zip, "a zip holds PNGs"),
        ("--outdir", options.outdir is not None, in_zip, "--out names a zip, and only one of them is written"),
        ("--columns", options.columns is not None, in_zip or options.format == "npz", "there is no grid"),
    ):
        if given and unused:
            raise UserError(f"{flag}: {why}; leave it out")


def _classes(options: ImagesOptions, source: Source) -> str | None:
    """What --class says; given none, an unlabelled network has none, and projected w and a count need none."""
    if options.class_ is None and source.G.c_dim > 0 and options.seeds is None:
        return "all" if options.count is not None else "0"
    return options.class_


def _seeds(options: ImagesOptions) -> Sequence[int]:
    if options.count is not None:
        return range(options.count)
    return [] if options.seeds is None else parse_seeds(options.seeds)


def _tiles_of(ws: Tensor) -> list[Tile]:
    return [Tile(number, None, 1.0, None, f"proj{number:02d}") for number in range(len(ws))]


def _tiles(
    source: Source, seeds: Sequence[int], psis: Sequence[float], classes: Sequence[int | None], in_turn: bool
) -> list[Tile]:
    """Of each seed in each class, or, with `in_turn`, in one of them; and with each psi."""
    if in_turn:
        chosen = [(seed, classes[seed % len(classes)], psi) for seed in seeds for psi in psis]
    else:
        chosen = [(seed, label, psi) for label in classes for seed in seeds for psi in psis]
    names = _names(source, classes)
    tiles = []
    for number, (seed, label, psi) in enumerate(chosen):
        of_class = f"-{names[label]}" if len(classes) > 1 and not in_turn else ""
        of_psi = f"-psi{str(psi).removesuffix('.0')}" if len(psis) > 1 else ""
        tiles.append(Tile(number, seed, psi, label, f"seed{seed:04d}{of_class}{of_psi}"))
    return tiles


def _require_no_folders(folder: Path, names: set[str]) -> None:
    """
    Raises:
        UserError: a folder stands where a file is to be written.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in names:
            require_free(path, "--outdir")


def _names(source: Source, classes: Sequence[int | None]) -> dict[int | None, str]:
    """Of classes, for file names: their own where these differ when shortened, else their numbers."""
    names = {label: re.sub(r"[^\w.+]+", "-", str(source.class_name(label)))[:LONGEST_CLASS] for label in classes}
    distinct = len({name.casefold() for name in names.values()}) == len(names)
    return names if distinct else {label: str(label) for label in classes}


def _columns(psis: Sequence[float], classes: Sequence[int | None], count: int) -> int:
    if len(psis) > 1:
        return len(psis)
    return count // len(classes) if 1 < len(classes) < count else COLUMNS


class _Sampler:
    """Makes the images of tiles.

    Args:
        source: the network.
        options: noise, truncated layers, batch.
        ws: for tiles without seeds.
    """

    def __init__(self, source: Source, options: ImagesOptions, ws: Tensor | None) -> None:
        self.source, self._options, self._ws = source, options, ws

    def how(self, tile: Tile) -> dict[str, Any]:
        """How it was made, for its file."""
        if tile.seed is None:
            return {"projected_w": Path(str(self._options.projected_w)).name, "row": tile.number}
        return {"seed": tile.seed, "psi": tile.psi, "class": self.source.class_name(tile.label)}

    @torch.no_grad()
    def images(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, np.ndarray, np.ndarray | None]]:
        """Pixels uint8 [H, W, C], and w [num_ws, w_dim] of networks that have one."""
        with tqdm(total=len(tiles), unit="img", disable=None) as bar:
            for start in range(0, len(tiles), self._options.batch):
                part = tiles[start : start + self._options.batch]
                pixels, ws = self._batch(part)
                for place, tile in enumerate(part):
                    yield tile, pixels[place], None if ws is None else ws[place]
                    bar.update()

    def _batch(self, tiles: Sequence[Tile]) -> tuple[np.ndarray, np.ndarray | None]:
        G: Any = self.source.G
        cutoff, noise_mode = self._options.trunc_cutoff, self._options.noise_mode
        if self._ws is not None:
            ws = self._ws[[tile.number for tile in tiles]]
        elif G.has_w:
            ws = self._by_psi(tiles, lambda z, c, psi: G.mapping(z, c, psi, cutoff, skip_w_avg_update=True))
        else:
            return to_pixels(self._by_psi(tiles, lambda z, c, psi: G(z, c, psi, cutoff, noise_mode))), None
        return to_pixels(G.synthesis(ws, noise_mode)), ws.cpu().numpy()

    def _by_psi(self, tiles: Sequence[Tile], make: Callable[[Tensor, Tensor, float], Tensor]) -> Tensor:
        """`make` of all tiles with one psi at a time; its rows in the order of the tiles."""
        rows: list[Tensor] = [torch.empty(0)] * len(tiles)
        for psi in {tile.psi for tile in tiles}:
            which = [place for place, tile in enumerate(tiles) if tile.psi == psi]
            z = self.source.z([tiles[place].seed or 0 for place in which])
            c = torch.cat([self.source.label(tiles[place].label) for place in which])
            for place, row in zip(which, make(z, c, psi), strict=True):
                rows[place] = row
        return torch.stack(rows)


def _zip(options: ImagesOptions, tiles: Sequence[Tile], sampler: _Sampler) -> Generated:
    out = Path(str(options.out))
    require_free(out, "--out")
    require_writable(out.parent, flag="--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_zip(out, ((pixels, tile.label) for tile, pixels, _ in sampler.images(tiles)))
    return Generated(out, [], None)


def _folder(
    options: ImagesOptions, folder: Path, tiles: Sequence[Tile], sampler: _Sampler, columns: int
) -> tuple[Generated, list[str]]:
    """Files of the images, their grid, and an index of both."""
    side, as_array = sampler.source.G.img_resolution, options.format == "npz"
    in_grid = len(tiles) * side**2 <= MOST_GRID_PIXELS and not as_array
    kept: list[np.ndarray] = []
    styles: list[np.ndarray] = []
    files, index = [], []
    for place, (tile, pixels, w) in enumerate(sampler.images(tiles)):
        how = sampler.how(tile)
        if as_array:
            kept.append(pixels)
            styles += [] if w is None else [w]
        else:
            files.append(folder / f"{tile.stem}.{options.format}")
            save_picture(pixels, files[-1], how)
            kept += [pixels] if in_grid else []
        index.append(
            how if as_array else {"file": files[-1].name, "row": place // columns, "column": place % columns, **how}
        )
    grid = folder / f"{GRID}.{options.format}" if in_grid else None
    if as_array:
        _save_arrays(folder / "images.npz", kept, styles, tiles)
    if grid is not None:
        save_picture(arrange(kept, columns), grid, {"tiles": [sampler.how(tile) for tile in tiles]})
    about = {"network": options.network, "noise_mode": options.noise_mode, "trunc_cutoff": options.trunc_cutoff}
    write_atomic(folder / INDEX, json.dumps({**about, "tiles": index}, indent=1))
    too_large = not in_grid and not as_array
    notes = [f"no grid: {len(tiles)} images of {side} pixels are more than one picture can show"] if too_large else []
    return Generated(folder, files, grid), notes


def _save_arrays(path: Path, images: list[np.ndarray], styles: list[np.ndarray], tiles: Sequence[Tile]) -> None:
    arrays: dict[str, Any] = {"images": np.stack(images), "psi": np.array([tile.psi for tile in tiles])}
    if styles:
        arrays["w"] = np.stack(styles)
    if tiles[0].seed is not None:
        arrays["seed"] = np.array([tile.seed for tile in tiles])
    if tiles[0].label is not None:
        arrays["class"] = np.array([tile.label for tile in tiles])
    write_atomic(path, lambda partial: np.savez(partial, **arrays))


def _remarks(options: ImagesOptions, psis: Sequence[float], seeds: Sequence[int]) -> list[str]:
    """What the user may not have meant."""
    lines = []
    if 0 in psis and options.trunc_cutoff is None and len(seeds) > 1:
        lines.append("--trunc=0: every image is the average one, so all are equal; give e.g. --trunc=0.7")
    twice = 0 if options.seeds is None else count_seeds(options.seeds) - len(seeds)
    if twice:
        lines.append(f"--seeds: {twice} seeds were given more than once; each is one image")
    return lines


def _earlier(folder: Path, made: Generated) -> list[str]:
    """A note on images of earlier calls beside those of this one."""
    names = {path.name for path in made.images}
    kinds = [path for kind in ("png", "jpg", "webp") for path in folder.glob(f"seed*.{kind}")]
    left = sorted(path.name for path in kinds if path.name not in names)
    if not left:
        return []
    return [
        f"{folder} also holds {len(left)} images of earlier calls, such as {left[0]}; evaluate.py --fakes={folder} "
        "counts them too"
    ]
