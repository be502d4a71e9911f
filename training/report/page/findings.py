"""What a run's snapshot shows: its samples beside their nearest training images, and the prompts that fit both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.errors import KDError
from kd_plugin.teachers import load_teacher, split_spec
from kd_plugin.teachers.image_input import rgb
from kd_plugin.teachers.protocol import Teacher
from training.checkpoint import load_snapshot
from training.data.dataset import ImageDataset
from training.data.pixels import to_float
from training.metrics import GeneratedImages
from training.metrics.neighbours import Nearest, nearest, nearest_others
from training.metrics.samples import BATCH
from training.report.page.record import RunRecord
from training.resume import CONFIG
from training.runs import configure

__all__ = ["Findings", "Judge", "Pair", "PromptScore", "Where"]

SHOWN = 16  # pairs of each kind
_QUANTILE = 0.05
_PIXELS_SIDE = 32  # images are compared at this size where a run has no teacher


@dataclass(frozen=True)
class Where:
    """What of a run is looked at, and how.

    data: the training images, if they are not where they were.
    samples: images made.
    device: where to compute.
    """

    data: str | None = None
    samples: int = 256
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Pair:
    """A sample and its nearest training image, uint8 [3, H, W]; the distance in units of the median of `Findings`."""

    sample: np.ndarray
    training: np.ndarray
    name: str
    distance: float


@dataclass(frozen=True)
class PromptScore:
    """Mean cosine of a prompt with training images and with samples."""

    text: str
    real: float
    fake: float


@dataclass(frozen=True)
class Findings:
    """
    Attributes:
        snapshot: that was looked at.
        compared_by: the features.
        unselected, closest: pairs: the first samples, and those nearest to a training image (each of these once).
        near: share of the samples nearer to a training image than 95 % of these are to one another.
        used: training images that are the nearest to some sample, of `count`.
        prompts: those that fit the training images best first.
        problem: why there is nothing more.
    """

    snapshot: str = ""
    compared_by: str = ""
    unselected: Sequence[Pair] = ()
    closest: Sequence[Pair] = ()
    near: float = 0.0
    used: int = 0
    count: int = 0
    prompts: Sequence[PromptScore] = ()
    problem: str = ""


@dataclass(frozen=True)
class Judge:
    """Looks at runs, all with the same eyes: the first teacher that one of them had or, without any, their pixels.

    Attributes:
        where: what is looked at.
        teacher: None: pixels.
        name: of what is compared.
    """

    where: Where
    teacher: Teacher | None
    name: str

    @classmethod
    def of(cls, runs: Sequence[RunRecord], where: Where) -> Judge:
        specs = (run.teacher for run in runs if run.is_ours)
        spec = next((spec for spec in specs if spec != "none"), None)
        by_pixels = f"pixels at {_PIXELS_SIDE}x{_PIXELS_SIDE}"
        if spec is None:
            return cls(where, None, by_pixels)
        _, first = split_spec(spec)[0]
        try:
            return cls(where, load_teacher(first, where.device, "fp32"), f"embeddings of {first}")
        except KDError as error:
            return cls(where, None, f"{by_pixels}, since the teacher cannot be loaded: {error}")

    def examine(self, run: RunRecord) -> Findings:
        """Make samples with the run's snapshot, and compare them with its training images; where that fails, `problem`
        says why."""
        if not run.is_ours:
            return Findings(problem="of an official checkout, whose networks are not loaded")
        if run.snapshot is None:
            return Findings(problem="it has no snapshot yet")
        try:
            given = {} if self.where.data is None else {"data": self.where.data}
            _, dataset = configure(given, str(run.folder / CONFIG))
            fakes = _samples(run, dataset, self.where)
        except (UserError, KDError) as error:
            return Findings(problem=f"{error}; if the images were moved, give --data")
        reals = torch.cat([torch.from_numpy(dataset.gather(np.array([index]))[0]) for index in range(dataset.used)])
        real, fake = self._features(reals), self._features(fakes)
        neighbours = nearest(fake, real)
        radius = nearest_others(real).double().quantile(_QUANTILE) if dataset.used > 2 else torch.tensor(0.0)
        unselected, closest = _pairs(fakes, reals, neighbours, dataset)
        return Findings(
            snapshot=run.snapshot.name,
            compared_by=self.name,
            unselected=unselected,
            closest=closest,
            near=float((neighbours.distance < radius).double().mean()),
            used=len(neighbours.index.unique()),
            count=dataset.used,
            prompts=[] if self.teacher is None else _prompt_scores(self.teacher, run.prompts, real, fake),
        )

    @torch.inference_mode()
    def _features(self, pixels: Tensor) -> Tensor:
        """uint8 [N, 3, R, R] -> [N, F], on the CPU."""
        parts = []
        for part in pixels.split(BATCH):
            images = rgb(to_float(part.to(self.where.device)))
            if self.teacher is None:
                side = (_PIXELS_SIDE, _PIXELS_SIDE)
                parts.append(torch.nn.functional.interpolate(images, side, mode="area").flatten(1).cpu())
            else:
                parts.append(torch.nn.functional.normalize(self.teacher.embed_images(images), dim=1).cpu())
        return torch.cat(parts)


def _samples(run: RunRecord, dataset: ImageDataset, where: Where) -> Tensor:
    """uint8 [samples, 3, R, R]."""
    assert run.snapshot is not None
    G = load_snapshot(run.snapshot, where.device).G_ema
    source = GeneratedImages(G, dataset, seed=0, device=where.device)
    return torch.cat([job.make().cpu() for job in source.jobs(where.samples, BATCH)])


def _pairs(fakes: Tensor, reals: Tensor, neighbours: Nearest, dataset: ImageDataset) -> tuple[list[Pair], list[Pair]]:
    """The first samples, and those nearest to a training image."""
    unit = float(neighbours.distance.median()) or 1.0

    def pair(place: int) -> Pair:
        index = int(neighbours.index[place])
        distance = float(neighbours.distance[place]) / unit
        return Pair(fakes[place].numpy(), reals[index].numpy(), dataset.file_name(index), distance)

    closest: dict[int, int] = {}  # training image: the sample
    for place in neighbours.distance.argsort().tolist():
        closest.setdefault(int(neighbours.index[place]), place)
    first = range(min(SHOWN, len(fakes)))
    return [pair(place) for place in first], [pair(place) for place in list(closest.values())[:SHOWN]]


def _prompt_scores(teacher: Teacher, prompts: Sequence[str], real: Tensor, fake: Tensor) -> list[PromptScore]:
    if not prompts:
        return []
    try:
        texts = torch.nn.functional.normalize(teacher.embed_texts(prompts), dim=1).cpu()
    except KDError:  # it has no text encoder
        return []
    means = [(features @ texts.T).mean(0).tolist() for features in (real, fake)]
    scores = [PromptScore(*each) for each in zip(prompts, *means, strict=True)]
    return sorted(scores, key=lambda score: -score.real)
