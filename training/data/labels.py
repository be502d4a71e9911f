"""Labels, class names and captions from dataset.json or from the folders of the images.

StyleGAN's `dataset.json` holds `labels` ([[name, class or vector], ...] or null); two keys are ours: `class_names`
(position = class) and `captions` ([[name, text], ...]). What people write is taken where its meaning is plain, and
refused by name and value where it is not.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dnnlib.errors import UserError

__all__ = ["Labels", "Meta", "classes_by_folder", "parse_labels", "read_meta"]

MOST_CLASSES = 100_000  # a larger class number is a mistake: every layer that reads labels would be that wide


@dataclass(frozen=True)
class Meta:
    """A dataset.json as it was read. Names have forward slashes; `labels` keeps the raw values."""

    labels: dict[str, Any]
    class_names: list[str] | None
    captions: dict[str, str]


@dataclass(frozen=True)
class Labels:
    """values: [n] int64 classes or [n, width] float32 vectors. names: of the classes, or None."""

    values: np.ndarray
    names: list[str] | None

    @property
    def width(self) -> int:
        """Of a label as the networks see it. There is a place for every named class, even if no image belongs to it."""
        if self.values.ndim == 2:
            return int(self.values.shape[1])
        return max(int(self.values.max()) + 1, len(self.names or []))


def read_meta(content: bytes, path: Path) -> Meta:
    """
    Raises:
        UserError: `content` (b"": none) is not such a JSON, or gives an image two labels.
    """
    try:
        meta = json.loads(content) if content else {}  # takes any UTF, with or without a byte-order mark
        labels = _table(meta.get("labels"))
        captions = {name: str(text) for name, text in _table(meta.get("captions")).items()}
        names = meta.get("class_names")
        return Meta(labels, None if names is None else [str(name) for name in names], captions)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"--data: dataset.json in '{path}' cannot be read ({error}); expected "
            '{"labels": [["a.png", 0], ...]} and optionally "class_names" and "captions"'
        ) from None


def _table(pairs: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs.items() if isinstance(pairs, Mapping) else pairs or []:
        key = _plain(str(name).replace("\\", "/"))
        if key in table and table[key] != value:
            raise ValueError(f"'{key}' stands in it twice, with {table[key]!r} and {value!r}")
        table[key] = value
    return table


def _plain(name: str) -> str:
    """Without './' and '//'. Most names have neither, and a path object takes 5 µs."""
    return str(PurePosixPath(name)) if "./" in name or "//" in name or name.endswith("/") else name


def parse_labels(meta: Meta, names: Sequence[str], path: Path) -> Labels:
    """The labels of the images `names`, in this order. Entries for other names do not count.

    Raises:
        UserError: there are none, some are missing, or their kinds do not fit together; names an image.
    """
    if not meta.labels:
        raise UserError(
            f"--cond: '{path}' has no labels in its dataset.json; add them, keep one folder per class without a "
            "dataset.json, or give --cond=false"
        )
    missing = [name for name in names if meta.labels.get(name) is None]
    if missing:
        raise UserError(f"--cond: {len(missing)} images of '{path}' have no label, such as '{missing[0]}'")
    given = {name: meta.labels[name] for name in names}
    kinds = set(map(type, given.values()))
    if kinds == {list}:
        return Labels(_vectors(given, path), meta.class_names)
    if kinds == {str} and not any(map(_is_whole, given.values())):
        known = meta.class_names if meta.class_names is not None else sorted(set(given.values()))
        return Labels(_named(given, known, path), known)
    labels = Labels(_numbered(given, path), meta.class_names)
    if labels.names is not None and len(labels.names) != labels.width:
        raise UserError(
            f"--cond: dataset.json in '{path}' has {len(labels.names)} class_names but labels of {labels.width} classes"
        )
    return labels


def _is_whole(value: Any) -> bool:
    """3, 3.0 and "3" all mean class 3; true does not mean class 1."""
    if isinstance(value, str):
        return value.strip().isdecimal()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value == int(value) and value >= 0


def _numbered(given: Mapping[str, Any], path: Path) -> np.ndarray:
    for name, value in given.items():
        if not _is_whole(value):
            raise UserError(
                f"--cond: '{name}' in '{path}' has the label {value!r}; labels must be class numbers from 0 up, or all "
                "class names, or all vectors of numbers"
            )
        if int(value) >= MOST_CLASSES:
            raise UserError(
                f"--cond: '{name}' in '{path}' has the label {value!r}; number the classes from 0 up (a network for "
                f"more than {MOST_CLASSES} classes is not built)"
            )
    return np.array([int(value) for value in given.values()], np.int64)


def _named(given: Mapping[str, str], known: Sequence[str], path: Path) -> np.ndarray:
    classes = {name: number for number, name in enumerate(known)}
    for name, value in given.items():
        if value not in classes:
            raise UserError(f"--cond: '{name}' in '{path}' has the label {value!r}, which is none of its class_names")
    return np.array([classes[value] for value in given.values()], np.int64)


def _vectors(given: Mapping[str, list[Any]], path: Path) -> np.ndarray:
    lengths = Counter(len(value) for value in given.values())
    if len(lengths) != 1 or 0 in lengths:
        widths = ", ".join(str(length) for length in sorted(lengths))
        raise UserError(f"--cond: the labels of '{path}' differ in length or are empty: {widths}")
    try:
        vectors = np.array(list(given.values()), np.float32)
    except (ValueError, TypeError):
        vectors = np.full((1, 1), np.nan)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise UserError(f"--cond: the labels of '{path}' must all be vectors of finite numbers")
    return vectors


def classes_by_folder(names: Sequence[str]) -> Labels | None:
    """Classes from folders, one per class; None unless all images lie in two or more top folders."""
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    known = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    if "" in known or len(known) < 2:
        return None
    return Labels(np.array([known[folder] for folder in folders], np.int64), list(known))
