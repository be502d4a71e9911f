"""Reading a zip or a folder of images as pixels and labels.

Images may lie anywhere below the root and are ordered by name; labels are in training/data/labels.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from training.data.choice import chosen, open_files, without_grids
from training.data.decoding import UNREADABLE, decode_image, image_size, reason
from training.data.labels import Labels, classes_by_folder, parse_labels, read_meta
from training.data.pixels import to_float

__all__ = ["ImageDataset", "is_power_of_two", "is_usable", "nearest_resolution"]

SMALLEST_RESOLUTION, LARGEST_RESOLUTION = 4, 2**14  # of a StyleGAN2 network, and of any image that it could make
CHECKED_AT_START = 1000  # images whose size is read before anything else happens; the others as they are decoded
_DECODERS = min(os.cpu_count() or 1, 16)  # threads


class ImageDataset:
    """Square RGB images with labels. `dataset[i]` is (pixels uint8 [3, R, R], label float32 [label_dim]).

    Images are decoded once and kept where all of them fit into `memory_limit`, else decoded at each use. Copies sent
    to other processes leave pixels and open files behind.

    Args:
        path: a zip or a folder.
        resolution: crop and resize to this; None takes the images as they are: all of one size, a power of two.
        use_labels: hand out the labels of dataset.json; False: labels of width 0.
        max_size: use this many images, drawn by `seed` (the same ones as StyleGAN's --subset); None: all.
        mirror: indices n .. 2n-1 are the n images flipped left to right.
        holdout: leave out this many images, drawn by `seed`, before the subset is taken.
        held_out: use those that are left out, and none of the others.
        seed: of the subset and of the images left out.
        memory_limit: in bytes of pixels.
        flag: what the path was given by, for messages.

    Attributes:
        name: the file's or folder's name without suffix.
        resolution, num_channels: R and 3.
        label_dim: width of a label, 0 without labels.
        class_names: names of the classes, or None.
        captions: one text an index ("" where dataset.json has none), or None.
        raw_length: images in the source, before max_size and mirror.
        label_note: how labels are used, for the log; "" without labels.
        skipped: how many other files lie there, by suffix ("hidden": hidden and system files).
        fits_in_memory: whether pixels are kept.
        fingerprint: equal for datasets with the same images at the same indices and the same dataset.json, zipped or
            not. Of a folder over 256 MB it sees names and sizes only.
        source_fingerprint: the same of all images that lie there, whichever of them are used and however.

    Raises:
        UserError: the source, an image (named) or dataset.json cannot be used.
    """

    num_channels = 3

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resolution: int | None = None,
        use_labels: bool = False,
        max_size: int | None = None,
        mirror: bool = False,
        holdout: int = 0,
        held_out: bool = False,
        seed: int = 0,
        memory_limit: int = 2 << 30,
        flag: str = "--data",
    ) -> None:
        self.path = Path(path)
        self._flag = flag
        self._files = open_files(self.path, flag)
        self.name = self.path.resolve().stem if self.path.is_file() else self.path.resolve().name
        names = [self._files.name(number) for number in range(len(self._files))]
        usable = without_grids(names)
        self.raw_length = len(usable)
        self.mirror = mirror
        self._resize = resolution
        if resolution is not None and not is_power_of_two(resolution):
            raise UserError(
                f"--resolution: expected a power of two from {SMALLEST_RESOLUTION} to {LARGEST_RESOLUTION}, got "
                f"{resolution}"
            )
        self._kept = usable[chosen(len(usable), max_size, holdout, held_out, seed)]
        self.resolution = resolution or self._common_resolution()

        root = self._files.companion_root  # dataset.json names the images relative to the folder it lies in
        names = [name.removeprefix(root) for name in names]
        meta = read_meta(self._files.companion, self.path)
        by_folder = None if self._files.companion else classes_by_folder(names)
        labels = None
        if use_labels:
            labels = by_folder or parse_labels(meta, names, self.path)
        self._labels = None if labels is None else labels.values[self._kept]
        self.label_dim = 0 if labels is None else labels.width
        self.class_names = labels.names if labels is not None else meta.class_names or _spoken(by_folder)
        self.label_note = _label_note(labels, meta.labels, by_folder)
        texts = meta.captions
        self.captions = [texts.get(names[n], "") for n in self._kept] * (1 + mirror) if texts else None

        self.fits_in_memory = len(self._kept) * 3 * self.resolution**2 <= memory_limit
        self._pixels: np.ndarray | None = None  # [kept, 3, R, R]
        self.source_fingerprint = self._fingerprint(b"", [])
        self.fingerprint = self._fingerprint(json.dumps([self._resize, self.mirror]).encode(), [self._kept])

    def __len__(self) -> int:
        return len(self._kept) * (1 + self.mirror)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a dataset of {len(self)}")
        pixels, labels = self.gather(np.array([index]))
        return pixels[0], labels[0]

    @property
    def skipped(self) -> Counter[str]:
        grids = Counter({"grid of generate.py": len(self._files) - self.raw_length})
        return self._files.skipped + grids  # the sum leaves out what there are none of

    @property
    def used(self) -> int:
        """Images in use, not counting mirrored ones."""
        return len(self._kept)

    @property
    def has_labels(self) -> bool:
        """Whether labels are handed out."""
        return self.label_dim > 0

    def file_name(self, index: int) -> str:
        """Of the image at `index`, within the source."""
        return self._files.name(int(self._kept[index % len(self._kept)]))

    def label(self, index: int) -> np.ndarray:
        """[label_dim] float32: one-hot for classes."""
        label: np.ndarray = self.labels_at(np.array([index]))[0]
        return label

    def images(self, limit: int, batch: int = 64) -> Iterator[torch.Tensor]:
        """The first `limit` images at most, as float32 [B, 3, R, R] in [-1, 1]."""
        for first in range(0, min(limit, len(self)), batch):
            pixels, _ = self.gather(np.arange(first, min(first + batch, limit, len(self))))
            yield to_float(torch.from_numpy(pixels))

    def gather(self, indices: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 [B, 3, R, R] and labels float32 [B, label_dim] at `indices` [B].

        `threads` decode at once, where images are not kept in memory.
        """
        flipped, rows = np.divmod(indices, len(self._kept))
        if self.fits_in_memory:
            self.preload()
            assert self._pixels is not None
            pixels: np.ndarray = self._pixels[rows]
        else:
            pixels = self._decode_rows(rows, threads)
        backwards = flipped.astype(bool)
        if backwards.any():
            pixels[backwards] = pixels[backwards, :, :, ::-1]
        return pixels, self.labels_at(indices)

    def preload(self) -> None:
        """Decode all images now if they fit in memory; errors in any of them are reported here."""
        if self.fits_in_memory and self._pixels is None:
            try:
                self._pixels = self._decode_rows(np.arange(len(self._kept)), threads=_DECODERS)
            except UserError as error:
                bad = self._all_unreadable()
                raise (self._unreadable(bad) if bad else error) from None

    @property
    def resize_note(self) -> str:
        """How images of another size were resized; results compare only if this agrees."""
        return "none" if self._resize is None else f"centre square, Lanczos to {self._resize}"

    def isin(self, other: ImageDataset) -> np.ndarray:
        """bool [len(self)]: which images are, pixel by pixel, among those of `other`."""
        known = set(other._pixel_digests())
        return np.array([digest in known for digest in self._pixel_digests()])

    def _pixel_digests(self) -> Iterator[bytes]:
        for first in range(0, len(self), 256):
            pixels, _ = self.gather(np.arange(first, min(first + 256, len(self))), _DECODERS)
            yield from (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels)

    @functools.cached_property
    def repeated(self) -> list[tuple[str, str]]:
        """The images that show, pixel by pixel, what an earlier one shows: (name, that one's name)."""
        first: dict[bytes, str] = {}
        names = (self.file_name(index) for index in range(self.used))  # digests go on to the mirrored ones
        pairs = [(name, first.setdefault(digest, name)) for name, digest in zip(names, self._pixel_digests())]  # noqa: B905
        return [(name, earlier) for name, earlier in pairs if name != earlier]

    @functools.cached_property
    def content_fingerprint(self) -> str:
        """Equal for the same images at the same indices; unlike `fingerprint` it reads large folders to know."""
        files = self._files
        crcs = files.crcs if files.crcs.any() else [zlib.crc32(files.read(int(number))) for number in self._kept]
        return hashlib.sha256(self.fingerprint.encode() + np.asarray(crcs, np.uint32).tobytes()).hexdigest()[:32]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}

    def labels_at(self, indices: np.ndarray) -> np.ndarray:
        """[B, label_dim] float32 of the images at `indices` [B]."""
        if self._labels is None:
            return np.zeros((len(indices), 0), np.float32)
        labels: np.ndarray = self._labels[indices % len(self._kept)]
        if labels.ndim == 2:
            return labels
        one_hot = np.zeros((len(labels), self.label_dim), np.float32)
        one_hot[np.arange(len(labels)), labels] = 1
        return one_hot

    def _decode_rows(self, rows: np.ndarray, threads: int) -> np.ndarray:
        """Pillow releases Python's lock while it decodes, so threads run in parallel."""
        pixels = np.empty((len(rows), 3, self.resolution, self.resolution), np.uint8)

        def fill(place: int) -> None:
            pixels[place] = self._decode(int(self._kept[rows[place]])).transpose(2, 0, 1)

        _for_each(fill, range(len(rows)), threads)
        return pixels

    def _decode(self, number: int) -> np.ndarray:
        try:
            pixels = decode_image(self._files.read(number), self._resize)
        except UNREADABLE as error:
            raise self._unreadable({number: error}) from None
        if pixels.shape[:2] != (self.resolution, self.resolution):
            raise self._wrong_size({number: (pixels.shape[1], pixels.shape[0])})
        return pixels

    def _common_resolution(self) -> int:
        """The one size of the images, read from the headers of up to CHECKED_AT_START of them."""
        steps = np.linspace(0, len(self._kept) - 1, min(len(self._kept), CHECKED_AT_START))
        sizes = {int(number): self._size(int(number)) for number in self._kept[steps.astype(np.int64)]}
        common = next(iter(sizes.values()))
        if set(sizes.values()) != {common} or not is_usable(common):
            raise self._wrong_size(sizes)
        return common[0]

    def _size(self, number: int) -> tuple[int, int]:
        try:
            return image_size(self._files.read(number))
        except UNREADABLE as error:
            raise self._unreadable(self._all_unreadable() or {number: error}) from None

    def _all_unreadable(self) -> dict[int, BaseException]:
        """Check every image, to report all bad files at once."""
        bad: dict[int, BaseException] = {}

        def test(number: int) -> None:
            try:
                decode_image(self._files.read(number), self._resize)
            except UNREADABLE as error:
                bad[number] = error

        _for_each(test, self._kept.tolist(), threads=_DECODERS)
        return dict(sorted(bad.items()))

    def _unreadable(self, bad: dict[int, BaseException]) -> UserError:
        named = [(f"'{self._files.name(number)}'", f"({reason(error)})") for number, error in bad.items()]
        if len(named) == 1:
            return UserError(f"{self._flag}: cannot read image {named[0][0]} in '{self.path}' {named[0][1]}")
        shown = _some([" ".join(each) for each in named], 20, "; ")
        return UserError(f"{self._flag}: cannot read {len(named)} images in '{self.path}': {shown}")

    def _wrong_size(self, sizes: dict[int, tuple[int, int]]) -> UserError:
        """The number of images of each size, with an example."""
        examples = {size: number for number, size in reversed(sizes.items())}  # the first of each
        common = Counter(sizes.values()).most_common()
        listed = [
            f"{count} of {width}x{height}, such as '{self._files.name(examples[width, height])}'"
            for (width, height), count in common
        ]
        offer = nearest_resolution(common[0][0])
        return UserError(
            f"{self._flag}: the images of '{self.path}' must be square, of one size, a power of two of at least "
            f"{SMALLEST_RESOLUTION}; found {_some(listed, 6, '; ')}. --resolution={offer} crops and resizes them"
        )

    def _fingerprint(self, use: bytes, further: list[np.ndarray]) -> str:
        digest = hashlib.sha256(use + self._files.companion)
        for column in (self._files.names, self._files.sizes, self._files.crcs, *further):
            digest.update(column.tobytes())
        return digest.hexdigest()[:32]


def _for_each(action: Callable[[int], None], numbers: Iterable[int], threads: int) -> None:
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(action, numbers):
                pass
    else:
        for number in numbers:
            action(number)


def _some(items: list[str], most: int, joint: str) -> str:
    """'a; b; and 3 more'."""
    left = len(items) - most
    return joint.join([*items[:most], *([f"and {left} more"] if left > 0 else [])])


def is_power_of_two(side: int) -> bool:
    """That a network can be built for."""
    return SMALLEST_RESOLUTION <= side <= LARGEST_RESOLUTION and side & (side - 1) == 0


def is_usable(size: tuple[int, int]) -> bool:
    """Whether networks can be built for images of this size."""
    return size[0] == size[1] and is_power_of_two(size[0])


def nearest_resolution(size: tuple[int, int]) -> int:
    """The largest resolution to which images of this size can be cropped and reduced."""
    return max(1 << min(size).bit_length() - 1, SMALLEST_RESOLUTION)


def _spoken(by_folder: Labels | None) -> list[str] | None:
    """Folder names if all of them are words: '00000' and '1' mean nothing."""
    if by_folder is None or by_folder.names is None or not all(any(map(str.isalpha, n)) for n in by_folder.names):
        return None
    return by_folder.names


def _label_note(labels: Labels | None, in_meta: dict[str, Any], by_folder: Labels | None) -> str:
    if labels is not None:
        kind = "classes" if labels.values.ndim == 1 else "numbers each"
        names = _some(labels.names, 12, ", ") if labels.names else ""
        source = "by folder" if labels is by_folder else "in dataset.json"
        return f"{labels.width} {kind} {source}" + (f" ({names})" if names else "")
    if in_meta:
        classes = {str(value) for value in in_meta.values() if not isinstance(value, list)}
        described = f"{len(classes)} classes" if classes else f"{len(in_meta)} vectors"
        return f"{described} in dataset.json, not used (--cond=1 uses them)"
    return ""
