"""Turning a source of images into the zip that this trainer and official checkouts read.

Several processes make the images, one file each in a folder beside the zip, so that an interrupted conversion continues
where it stopped; the zip appears complete or not at all.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
import sys
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.data.dataset import is_usable, nearest_resolution
from training.data.decoding import UNREADABLE, decode_image, fit, reason
from training.data.sources import Content, Source

__all__ = ["Converted", "Form", "choose", "convert", "work_folder"]

CHUNK = 16  # images that a process takes at a time
SHOWN = 20  # broken images named in a message
_SETTINGS = "settings.json"
# A forked process starts at once; a spawned one imports torch first, which takes as long as a thousand small images.
_START = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else "spawn"


@dataclass(frozen=True)
class Form:
    """What an image becomes.

    resolution: side in pixels; None: as it is.
    crop: the largest square from the centre; otherwise the whole image is squeezed into a square.
    filter: of the resizing, a name in training.data.decoding.FILTERS.
    """

    resolution: int | None
    crop: bool
    filter: str


@dataclass(frozen=True)
class Converted:
    """What was written: images by their numbers in the source, their side; and broken ones that were left out."""

    numbers: list[int]
    side: int
    left_out: list[int]


def choose(count: int, subset: str | None, seed: int) -> list[int]:
    """The numbers of the images in use, ascending.

    Args:
        count: of the source.
        subset: '10%' or a number of images; None: all.
        seed: numpy's old generator, as in StyleGAN2-ADA's --subset and in DiffAugment's CIFAR subsets (seed 0).

    Raises:
        UserError: `subset` is neither, or more than there are.
    """
    if subset is None:
        return list(range(count))
    try:
        wanted = round(float(subset[:-1]) / 100 * count) if subset.endswith("%") else int(subset)
    except (ValueError, OverflowError):
        raise UserError(f"--subset: '{subset}' was given, expected a number of images or a share such as 10%") from None
    if not 1 <= wanted <= count:
        raise UserError(f"--subset: {subset} is {wanted} images, expected 1 to {count}")
    return sorted(np.random.RandomState(seed).permutation(count)[:wanted].tolist())


def work_folder(dest: Path) -> Path:
    """Where the images are made."""
    return dest.with_name(f"{dest.name}.partial")


def convert(
    source: Source,
    dest: Path,
    form: Form,
    numbers: Sequence[int],
    *,
    workers: int,
    skip_broken: bool = False,
    told: Callable[[int], object] = lambda count: None,
) -> Converted:
    """Writes the zip.

    Args:
        source: of the images.
        dest: the zip.
        form: of each image.
        numbers: which images, ascending.
        workers: processes.
        skip_broken: leave out images that cannot be read; otherwise they are an error, named after all were tried.
        told: called with how many more images are done.

    Raises:
        UserError: images cannot be read, or differ in size, or are no squares of a power of two. What was made is kept
            for another try.
    """
    folder = work_folder(dest)
    _start(folder, {"form": asdict(form), "images": len(source), "numbers": len(numbers), "last": numbers[-1]})
    left = [number for number in numbers if not _made(folder, number).is_file()]
    told(len(numbers) - len(left))
    broken = _make(source, folder, form, left, workers, told)
    if broken and not skip_broken:
        shown = "; ".join(f"'{source.name(number)}' ({why})" for number, why in list(broken.items())[:SHOWN])
        more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise UserError(
            f"--source: {len(broken)} images cannot be read: {shown}{more}. Mend them and start again, which "
            "continues, or give --skip-broken"
        )
    good = [number for number in numbers if number not in broken]
    if not good:
        raise UserError("--source: none of its images can be read")
    side = _common_side(folder, good)
    write_atomic(dest, lambda partial: _write_zip(partial, source, folder, good))
    shutil.rmtree(folder)
    return Converted(good, side, list(broken))


def _start(folder: Path, settings: dict[str, Any]) -> None:
    """Makes the folder; one that another conversion left is emptied."""
    note = folder / _SETTINGS
    text = json.dumps(settings)
    if folder.exists() and (not note.is_file() or note.read_text() != text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(note, text)


def _make(
    source: Source, folder: Path, form: Form, numbers: Sequence[int], workers: int, told: Callable[[int], object]
) -> dict[int, str]:
    """Makes the images; returns why, of each that cannot be read."""
    broken: dict[int, str] = {}
    contents = zip(numbers, source.contents(numbers), strict=True)
    for chunk, reasons in _in_processes(_chunks(contents), folder, form, workers):
        broken |= {number: why for (number, _), why in zip(chunk, reasons, strict=True) if why}
        told(len(chunk))
    return broken


Chunk = list[tuple[int, Content]]


def _in_processes(chunks: Iterator[Chunk], folder: Path, form: Form, workers: int) -> Iterator[tuple[Chunk, list[str]]]:
    """Each chunk with its reasons, in order; few are held in memory at a time."""
    if workers == 1:
        for chunk in chunks:
            yield chunk, make_images(folder, form, chunk)
        return
    waiting: deque[tuple[Chunk, Future[list[str]]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(_START)) as pool:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(make_images, folder, form, chunk)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _chunks(contents: Iterator[tuple[int, Content]]) -> Iterator[Chunk]:
    chunk: Chunk = []
    for each in contents:
        chunk.append(each)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def make_images(folder: Path, form: Form, chunk: Chunk) -> list[str]:
    """Writes a PNG for each image; returns why not, "" where it was written."""
    reasons = []
    for number, content in chunk:
        try:
            image = Image.fromarray(_rgb(content))
            if form.resolution is not None:
                image = fit(image, form.resolution, form.crop, form.filter)
            encoded = io.BytesIO()
            image.save(encoded, "png", compress_level=1)
            target = _made(folder, number)
            partial = target.with_suffix(".part")
            partial.write_bytes(encoded.getvalue())  # not flushed: a million images would take hours
            partial.replace(target)
            reasons.append("")
        except UNREADABLE as error:
            reasons.append(reason(error))
    return reasons


def _rgb(content: Content) -> np.ndarray:
    if isinstance(content, bytes):
        return decode_image(content)
    return np.repeat(content[:, :, None], 3, axis=2) if content.ndim == 2 else content


def _made(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.png"


def _common_side(folder: Path, numbers: Sequence[int]) -> int:
    """
    Raises:
        UserError: the images are not squares of one size that is a power of two.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    for number in numbers:
        with Image.open(_made(folder, number)) as image:
            sizes[image.size] += 1
    (width, height), _ = sizes.most_common(1)[0]
    if len(sizes) > 1 or not is_usable((width, height)):
        listed = ", ".join(f"{count} of {w}x{h}" for (w, h), count in sizes.most_common(5))
        offer = nearest_resolution((width, height))
        raise UserError(
            f"--source: images must become squares of one size, a power of two of at least 4; these are {listed}. Give "
            f"--resolution={offer}"
        )
    return width


def _write_zip(path: Path, source: Source, folder: Path, numbers: Sequence[int]) -> None:
    """Names and dataset.json as StyleGAN2-ADA's tool writes them; class_names and captions are two more keys."""
    names = [f"{place // 1000:05d}/img{place:08d}.png" for place in range(len(numbers))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, number in zip(names, numbers, strict=True):
            archive.write(_made(folder, number), name)
        labels, captions = source.labels, source.captions
        pairs = list(zip(names, numbers, strict=True))
        meta: dict[str, Any] = {
            "labels": None if labels is None else [[name, labels[number]] for name, number in pairs]
        }
        if labels is not None and source.class_names is not None:
            meta["class_names"] = list(source.class_names)
        if captions is not None:
            meta["captions"] = [[name, captions[number]] for name, number in pairs if captions[number]]
        archive.writestr("dataset.json", json.dumps(meta))
