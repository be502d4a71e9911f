"""A folder or a zip of image files, with the labels and captions that lie beside them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dnnlib.errors import UserError
from dnnlib.tables import FileTable
from training.data.choice import open_files
from training.data.labels import classes_by_folder, parse_labels, read_meta
from training.data.sources.base import Content, Source

__all__ = ["ImageFiles"]


class ImageFiles(Source):
    """Labels are those of dataset.json, else the top folders where all images lie in two or more; captions those of
    dataset.json, else of text files beside the images of a folder (cat.png, cat.txt)."""

    def __init__(self, path: Path, split: str, fps: float | None) -> None:
        self._files: FileTable = open_files(path, "--source")
        self._names = [self._files.name(number) for number in range(len(self._files))]
        root = self._files.companion_root
        names = [name.removeprefix(root) for name in self._names]
        meta = read_meta(self._files.companion, path)
        labels = parse_labels(meta, names, path) if meta.labels else None
        if not self._files.companion:
            labels = classes_by_folder(names)
        if labels is not None:
            self.labels, self.class_names = labels.values.tolist(), labels.names
        captions = [meta.captions.get(name, "") for name in names]
        if not any(captions) and path.is_dir():
            captions = [_text_beside(path / name) for name in self._names]
        self.captions = captions if any(captions) else None

    @classmethod
    def is_at(cls, path: Path) -> bool:
        return path.is_dir() or zipfile.is_zipfile(path)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, number: int) -> str:
        return self._names[number]

    def contents(self, numbers: Sequence[int]) -> Iterator[Content]:
        for number in numbers:
            try:
                yield self._files.read(number)
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"--source: '{self._names[number]}' cannot be read: {error}") from None


def _text_beside(image: Path) -> str:
    text = image.with_suffix(".txt")
    try:
        return " ".join(text.read_text(encoding="utf-8", errors="replace").split()) if text.is_file() else ""
    except OSError:
        return ""
