"""Everything that is wrong with a set of images, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.choice import open_files
from training.data.dataset import is_usable
from training.data.decoding import UNREADABLE, decode_image, reason
from training.data.labels import classes_by_folder, read_meta

__all__ = ["Checked", "check_images"]


@dataclass(frozen=True)
class Checked:
    """count: images. sizes: of those that can be read. problems: one line each."""

    count: int
    sizes: Counter[tuple[int, int]]
    problems: list[str]


def check_images(path: Path, resized: bool = False) -> Checked:
    """Reads every image of a folder or zip.

    Args:
        path: of the set.
        resized: sizes do not matter, since --resolution will be given.

    Raises:
        UserError: it is no folder or zip of images.
    """
    files = open_files(path, "PATH")
    names = [files.name(number) for number in range(len(files))]
    sizes: Counter[tuple[int, int]] = Counter()
    where: dict[str, tuple[int, int]] = {}
    problems = []
    for number, name in enumerate(names):
        try:
            height, width = decode_image(files.read(number)).shape[:2]
        except UNREADABLE as error:
            problems.append(f"broken: {name} ({reason(error)})")
            continue
        sizes[width, height] += 1
        where[name] = (width, height)
    if not resized:
        problems += _odd_sizes(where, sizes)
    meta = read_meta(files.companion, path)
    inner = [name.removeprefix(files.companion_root) for name in names]
    problems += _label_problems(inner, meta.labels, files.companion != b"")
    strangers = meta.captions.keys() - set(inner)
    problems += [f"dataset.json has a caption for {name}, which is not there" for name in sorted(strangers)]
    return Checked(len(names), sizes, problems)


def _odd_sizes(where: dict[str, tuple[int, int]], sizes: Counter[tuple[int, int]]) -> Iterator[str]:
    if not sizes:
        return
    common, _ = sizes.most_common(1)[0]
    for name, (width, height) in where.items():
        if (width, height) != common:
            yield f"odd size: {name} is {width}x{height}, most images are {common[0]}x{common[1]}"
    if not is_usable(common):
        yield f"size: {common[0]}x{common[1]} is no square of a power of two; convert with --resolution"


def _label_problems(names: list[str], labels: dict[str, object], has_json: bool) -> Iterator[str]:
    if labels:
        known = set(names)
        yield from (f"no label: {name}" for name in names if labels.get(name) is None)
        yield from (f"dataset.json has a label for {name}, which is not there" for name in labels if name not in known)
    elif not has_json and classes_by_folder(names) is None and len({name.rpartition("/")[0] for name in names}) > 1:
        loose = [name for name in names if "/" not in name]
        yield from (f"no class: {name} lies beside the folders of classes" for name in loose)
