"""The images of a run: for training, held out, and for comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.data.dataset import ImageDataset
from training.data.fewshot_sets import reference_of, resolve_data

__all__ = ["ImageOptions", "open_held_out", "open_reference", "open_training_set"]


@dataclass(frozen=True)
class ImageOptions:
    """The options of TrainConfig that decide which images a run uses; they are known before the rest.

    The defaults are the whole set, as it is.
    """

    data: str
    resolution: int | None = None
    cond: bool = False
    subset: int | None = None
    holdout: int = 0
    mirror: bool = False
    seed: int = 0
    reference: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ImageOptions:
        """Those among the options of a run, by key; the others have their defaults."""
        return cls(**{item.name: values[item.name] for item in dataclasses.fields(cls) if item.name in values})


def open_training_set(options: ImageOptions) -> ImageDataset:
    """The images to train on."""
    return ImageDataset(
        resolve_data(options.data),
        resolution=options.resolution,
        use_labels=options.cond,
        max_size=options.subset,
        mirror=options.mirror,
        holdout=0 if reference_of(options.data) else options.holdout,  # fresh images take its place
        seed=options.seed,
    )


def open_held_out(options: ImageOptions) -> ImageDataset | None:
    """The images of --holdout; new drawings with --data=demo; None without --holdout."""
    count = options.holdout
    if not count:
        return None
    fresh = reference_of(options.data, count)
    return ImageDataset(
        resolve_data(fresh or options.data),
        resolution=options.resolution,
        use_labels=options.cond,
        holdout=0 if fresh else count,
        held_out=not fresh,
        seed=options.seed,
        flag="--holdout",
    )


def open_reference(options: ImageOptions, train: ImageDataset | None = None, mirror: bool = False) -> ImageDataset:
    """What metrics compare with: --reference; else new drawings with --data=demo; else all of --data.

    So a run on a subset, or with images held out, is measured against the whole set (`_full` in the metrics' names).

    Args:
        options: of the run.
        train: the training set; given back where it is all of them: they need not be decoded and looked at twice.
        mirror: whether these are mirrored too; the training's own is not asked.
    """
    flag = "--reference" if options.reference else "--data"
    path = resolve_data(options.reference or reference_of(options.data) or options.data, flag)
    if train is not None and (train.path, train.mirror, len(train)) == (path, mirror, train.raw_length * (1 + mirror)):
        return train
    return ImageDataset(path, resolution=options.resolution, use_labels=options.cond, mirror=mirror, flag=flag)
