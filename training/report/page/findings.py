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
from kd_plugin.teachers import TEACHERS, split_spec
from training.checkpoint import load_snapshot
from training.config import TrainConfig
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_held_out, open_training_set
from training.metrics import Detector, GeneratedImages, load_detector
from training.metrics.detectors import pixel_detector
from training.metrics.neighbours import Copying, copying, nearest, nearest_others
from training.metrics.pairs import Closest
from training.metrics.samples import BATCH, real_sample
from training.report.page.prompt_scores import PromptScores, prompt_scores
from training.report.page.record import RunRecord

__all__ = ["Findings", "Judge", "Pair", "Where"]

SHOWN = 16  # pairs of each kind
FEWEST = 20  # images that a statement about copies is calibrated on


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


class Judge:
    """Looks at runs, all with the same eyes.

    Args:
        runs: their first teacher compares images, without any their pixels do, unless `where` names a detector.
        where: what is looked at.

    Attributes:
        detector: what compares images.
        note: on it, for the reader.

    Raises:
        UserError: the detector cannot be used.
    """

    def __init__(self, runs: Sequence[RunRecord], where: Where) -> None:
        self._where = where
        self._teachers: dict[str, Detector | None] = {}
        taught = next((run for run in runs if _teacher_of(run)), None)
        teacher = None if taught is None else self._own_teacher(taught)
        self.note = ""
        if where.detector is not None:
            self.detector = load_detector(where.detector, where.device)
        elif teacher is not None:
            self.detector = teacher
            self.note = "It trained runs shown here, which flatters them: trust the pictures more, or give --detector. "
        else:
            self.detector = pixel_detector(where.device)
            self.note = "" if taught is None else f"{_teacher_of(taught)} cannot be loaded. "

    def examine(self, run: RunRecord) -> Findings:
        """Make samples with the run's snapshot, and compare them with its training images; where that fails, `problem`
        says why."""
        if not run.is_ours:
            return Findings(problem="of an official checkout, whose networks are not loaded")
        if run.snapshot is None:
            return Findings(problem="it has no snapshot yet")
        try:
            train, held_out = _images_of(run, self._where.data)
            G = load_snapshot(run.snapshot, self._where.device).G_ema
            source = GeneratedImages(G, train, seed=0, device=self._where.device)
            findings = self.compare(source, train, held_out, self._own_teacher(run), run.prompts)
            return dataclasses.replace(findings, snapshot=run.snapshot.name)
        except (UserError, KDError) as error:
            return Findings(problem=str(error))

    def compare(
        self,
        source: GeneratedImages,
        train: ImageDataset,
        held_out: ImageDataset | None = None,
        teacher: Detector | None = None,
        prompts: Sequence[str] = (),
    ) -> Findings:
        """
        Args:
            source: of the samples; each is made once.
            train: the training images.
            held_out: real images that were not trained on.
            teacher: that scores the prompts.
            prompts: of the run.
        """
        known = real_sample(self.detector, train, keep=True).rows
        embeddings: list[Tensor] = []
        distances: list[Tensor] = []
        found = Closest(SHOWN)
        unselected: list[tuple[int, float, np.ndarray]] = []
        hit: set[int] = set()
        for job in source.jobs(self._where.samples, BATCH):
            pixels = job.make()
            features = self.detector(pixels).cpu()
            neighbours = nearest(features, known)
            distances.append(neighbours.distance)
            for sample, index, distance in zip(
                pixels, neighbours.index.tolist(), neighbours.distance.tolist(), strict=True
            ):
                hit.add(index % train.used)  # a mirrored image is the same
                found.add(index, distance, sample)
                if len(unselected) < SHOWN:
                    unselected.append((index, distance, sample.cpu().numpy()))
            if teacher is not None:
                embeddings.append(features if teacher is self.detector else teacher(pixels).cpu())
        unseen, who = self._unseen(known, train, held_out)
        unit = float(unseen.median()) or 1.0
        closest = [(index, *rest) for index, rest in found.found().items()]
        return Findings(
            unselected=[_pair(train, unit, *each) for each in unselected],
            closest=[_pair(train, unit, *each) for each in closest],
            copies=copying(torch.cat(distances), unseen) if len(unseen) >= FEWEST else None,
            unseen=who,
            used=len(hit),
            count=train.used,
            scores=None if teacher is None else self._scores(teacher, prompts, train, torch.cat(embeddings)),
        )

    def _unseen(self, known: Tensor, train: ImageDataset, held_out: ImageDataset | None) -> tuple[Tensor, str]:
        """Distances of unseen images to their nearest training image; and which ones these are."""
        if held_out is not None and len(held_out) >= FEWEST:
            rows = real_sample(self.detector, held_out, keep=True).rows
            return nearest(rows, known).distance, f"{len(rows)} images that were held out"
        distances = nearest_others(known, same=train.used)[: train.used]
        return distances, f"each of the {train.used} training images and the others"

    def _scores(
        self, teacher: Detector, prompts: Sequence[str], train: ImageDataset, fake: Tensor
    ) -> PromptScores | None:
        assert teacher.teacher is not None
        real = real_sample(teacher, train, keep=True).rows[: train.used]
        return prompt_scores(teacher.teacher, prompts, real, fake)

    def _own_teacher(self, run: RunRecord) -> Detector | None:
        """None: it had none, or it cannot be loaded."""
        spec = _teacher_of(run)
        if spec is not None and spec not in self._teachers:
            try:
                self._teachers[spec] = load_detector(spec, self._where.device)
            except UserError:
                self._teachers[spec] = None
        return None if spec is None else self._teachers[spec]


def _teacher_of(run: RunRecord) -> str | None:
    """The first teacher of a run of this trainer. None: it had none, or one that is somebody's code, which is not run
    here."""
    if not run.is_ours or run.teacher == "none":
        return None
    _, spec = split_spec(run.teacher)[0]
    return spec if spec.partition(":")[0] in TEACHERS else None


def _pair(train: ImageDataset, unit: float, index: int, distance: float, sample: np.ndarray) -> Pair:
    return Pair(sample, train.gather(np.array([index]))[0][0], train.file_name(index), distance / unit)


def _images_of(run: RunRecord, moved_to: str | None) -> tuple[ImageDataset, ImageDataset | None]:
    """The images that a run was trained on, and those that it held out.

    Raises:
        UserError: they cannot be opened, or are others than they were.
    """
    if "data" not in run.options:
        raise UserError("its config.json names no images")
    accepted_values(TrainConfig, {key: value for key, value in run.options.items() if not key.startswith("kd.")})
    options = ImageOptions.of(run.options)
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
