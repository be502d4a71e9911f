"""What a run's snapshot shows: its samples beside their nearest training images, and the prompts that fit both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.config.schema import accepted_values
from kd_plugin.errors import KDError
from training.checkpoint import load_snapshot
from training.config import TrainConfig
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_held_out, open_training_set
from training.data.pixels import to_float
from training.metrics import Detector, GeneratedImages, load_detector
from training.metrics.neighbours import Copying, copying, nearest, nearest_others
from training.metrics.samples import BATCH, real_sample
from training.report.page.prompt_scores import PromptScores, prompt_scores, teacher_of
from training.report.page.record import RunRecord

__all__ = ["Findings", "Judge", "Pair", "Where"]

SHOWN = 16  # pairs of each kind
FEWEST = 20  # images that a statement about copies is calibrated on
_PIXELS = 32  # side at which images are compared without a network


@dataclass(frozen=True)
class Where:
    """What of a run is looked at, and how.

    samples: images made.
    data: the training images, for runs whose own are gone.
    detector: what compares images, as `--detector` of evaluate.py; None: a teacher of the runs.
    device: where to compute.
    """

    samples: int
    data: str | None
    detector: str | None
    device: torch.device


@dataclass(frozen=True)
class Pair:
    """A sample and its nearest training image, uint8 [3, H, W], that image's name, and their distance: 1 is the median
    distance of an unseen image to its nearest training image."""

    sample: np.ndarray
    training: np.ndarray
    name: str
    distance: float


@dataclass(frozen=True)
class Findings:
    """
    Attributes:
        snapshot: that was looked at.
        unselected, closest: pairs: the first samples, and those nearest to a training image (each of these once).
        copies: None with fewer than FEWEST images to calibrate on.
        unseen: what it is calibrated on.
        used: training images that are the nearest to some sample, of `count`.
        scores: of the prompts; None without any.
        problem: why there is nothing more.
    """

    snapshot: str = ""
    unselected: Sequence[Pair] = ()
    closest: Sequence[Pair] = ()
    copies: Copying | None = None
    unseen: str = ""
    used: int = 0
    count: int = 0
    scores: PromptScores | None = None
    problem: str = ""


@dataclass(frozen=True)
class Judge:
    """Looks at runs, all with the same eyes.

    Attributes:
        where: what is looked at.
        detector: what compares images.
        note: on the detector, for the reader.
    """

    where: Where
    detector: Detector
    note: str

    @classmethod
    def of(cls, runs: Sequence[RunRecord], where: Where) -> Judge:
        """With `where.detector`; else the first teacher that one of the runs had; without any, their pixels.

        Raises:
            UserError: the detector cannot be used.
        """
        if where.detector is not None:
            return cls(where, load_detector(where.detector, where.device), "")
        spec = next((spec for run in runs if (spec := teacher_of(run))), None)
        if spec is None:
            return cls(where, _pixels(where.device), "")
        try:
            detector = load_detector(spec, where.device)
        except UserError as error:
            return cls(where, _pixels(where.device), f"The teacher cannot be loaded: {error}. ")
        note = "It trained runs shown here, which flatters them: trust the pictures more, or give --detector. "
        return cls(where, detector, note)

    def examine(self, run: RunRecord) -> Findings:
        """Make samples with the run's snapshot, and compare them with its training images; where that fails, `problem`
        says why."""
        if not run.is_ours:
            return Findings(problem="of an official checkout, whose networks are not loaded")
        if run.snapshot is None:
            return Findings(problem="it has no snapshot yet")
        try:
            train, held_out = _images_of(run, self.where.data)
            G = load_snapshot(run.snapshot, self.where.device).G_ema
            source = GeneratedImages(G, train, seed=0, device=self.where.device)
            findings = self._compare(source, train, held_out)
            scores = prompt_scores(run, source, train, self.where.samples)
            return dataclasses.replace(findings, snapshot=run.snapshot.name, scores=scores)
        except (UserError, KDError) as error:
            return Findings(problem=str(error))

    def _compare(self, source: GeneratedImages, train: ImageDataset, held_out: ImageDataset | None) -> Findings:
        known = real_sample(self.detector, train, keep=True).rows
        fake = torch.cat([self.detector(job.make()).cpu() for job in source.jobs(self.where.samples, BATCH)])
        of_fakes = nearest(fake, known)
        image = of_fakes.index % train.used  # a mirrored one is the same
        if held_out is not None and len(held_out) >= FEWEST:
            unseen = nearest(real_sample(self.detector, held_out, keep=True).rows, known).distance
            who = f"{len(unseen)} images that were held out"
        else:
            unseen = nearest_others(known, same=train.used)[: train.used]
            who = f"each of the {train.used} training images and the others"
        closest: dict[int, int] = {}  # training image: the sample
        for place in of_fakes.distance.argsort().tolist():
            closest.setdefault(int(image[place]), place)
        first = min(SHOWN, len(fake))
        chosen = [*range(first), *list(closest.values())[:SHOWN]]
        pixels, unit = _made(source, chosen, self.where.samples), float(unseen.median()) or 1.0
        pairs = [
            Pair(
                pixels[place],
                train.gather(of_fakes.index[[place]].numpy())[0][0],
                train.file_name(int(image[place])),
                float(of_fakes.distance[place]) / unit,
            )
            for place in chosen
        ]
        return Findings(
            unselected=pairs[:first],
            closest=pairs[first:],
            copies=copying(of_fakes.distance, unseen) if len(unseen) >= FEWEST else None,
            unseen=who,
            used=len(closest),
            count=train.used,
        )


def _pixels(device: torch.device) -> Detector:
    def features(pixels: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(to_float(pixels), (_PIXELS, _PIXELS), mode="area").flatten(1)

    return Detector(f"pixels at {_PIXELS}x{_PIXELS}", "", 3 * _PIXELS**2, device, features)


def _images_of(run: RunRecord, moved_to: str | None) -> tuple[ImageDataset, ImageDataset | None]:
    """The images that a run was trained on, and those that it held out.

    Raises:
        UserError: they cannot be opened, or are others than they were.
    """
    names = {field.name for field in dataclasses.fields(ImageOptions)}
    chosen = accepted_values(TrainConfig, {name: value for name, value in run.options.items() if name in names})
    if "data" not in chosen:
        raise UserError("its config.json names no images")
    options = ImageOptions(**chosen)
    try:
        train = open_training_set(options)
    except UserError as error:
        if moved_to is None:
            raise UserError(f"{error}; if the images were moved, give --data") from None
        options = dataclasses.replace(options, data=moved_to)
        train = open_training_set(options)
    if run.content.get("data", train.source_fingerprint) != train.source_fingerprint:
        raise UserError(f"'{options.data}' holds other images than the run was trained on")
    return train, open_held_out(options)


def _made(source: GeneratedImages, places: Sequence[int], count: int) -> dict[int, np.ndarray]:
    """The samples at these places, uint8 [3, R, R], made again: all of them could not be kept."""
    found: dict[int, np.ndarray] = {}
    for number, job in enumerate(source.jobs(count, BATCH)):
        inside = [place for place in set(places) if place // BATCH == number]
        if inside:
            batch = job.make().cpu().numpy()
            found |= {place: batch[place % BATCH] for place in inside}
    return found
