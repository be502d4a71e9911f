"""The metrics: their names, what they need, and how each is computed from the images' features.

A number in a name is the number of generated images, any number: `fid5k_full`, `kid1k_full`, `kid500_full`. A digit
after it is the number of neighbours: `pr50k3_full` looks at 3. `_full` means: compared with all real images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from dnnlib.errors import UserError
from kd_plugin.errors import nearest
from kd_plugin.teachers import load_teacher
from training.drawings.recognition import seen_attributes
from training.metrics.detectors import Detector
from training.metrics.frechet import frechet_distance
from training.metrics.inception_score import inception_score
from training.metrics.kernel import gaussian_mmd2, kernel_distance
from training.metrics.neighbours import (
    Nearest,
    copying,
    density_coverage,
    effective_number,
    intra_cluster_distance,
    mean_distance,
    nearest_others,
    precision_recall,
)
from training.metrics.neighbours import nearest as nearest_points
from training.metrics.samples import Sample

__all__ = ["EXAMPLES", "FAMILIES", "Metric", "MetricFamily", "MetricInputs", "parse_metrics"]


@dataclass(frozen=True)
class MetricInputs:
    """What a metric is computed from.

    Attributes:
        real: the real images that the generated ones are compared with.
        fake: the number of generated images in the metric's name.
        train: what the generator was trained on; may be `real` itself.
        unseen: bool [len(real)], which of `real` are not among `train`.
        seed: of whatever is drawn.
        device: where to compute.
    """

    real: Sample
    fake: Sample
    train: Sample
    unseen: Tensor
    seed: int
    device: torch.device

    @cached_property
    def nearest_train(self) -> Nearest:
        """Of each fake, among the training images."""
        return nearest_points(self.fake.rows.to(self.device), self.train.rows.to(self.device))


CLASSIFIER, TEACHER, DEMO = "classifier", "teacher", "demo"  # what a metric may need of its detector
MetricValues = dict[
    str, float
]  # by suffix: {"": 5.1, "stderr": 0.02} of kid5k_full is kid5k_full and kid5k_full_stderr


@dataclass(frozen=True)
class MetricFamily:
    """A family of metrics.

    Attributes:
        form: of the name; {n} stands for the number of fakes.
        about: one line for --help.
        measure: (inputs, number of neighbours) -> values by suffix, the main value first; None for a metric of paths
            through a generator, which needs no images.
        neighbours: how many it looks at unless its name says it; 0: none.
        least_real, least_fake: images that it needs, over the number of neighbours.
        rows: needs every image's features, not only the moments.
        train: looks at the training images.
        wants: what kind of detector: any, a "classifier", a "teacher", or the "demo" teacher.
        higher_is_better: of the main value.
    """

    form: str
    about: str
    measure: Callable[[MetricInputs, int], MetricValues] | None
    neighbours: int = 0
    least_real: int = 2
    least_fake: int = 2
    rows: bool = True
    train: bool = False
    wants: str = ""
    higher_is_better: bool = False

    def match(self, name: str) -> tuple[int, int] | None:
        """(number of fakes, neighbours) from a name of this form; None for other names."""
        match = re.fullmatch(self.form.format(n=r"([1-9]\d*)(k?)(?:(?<=k)([1-9]))?"), name)
        if match is None or (match[3] and not self.neighbours):
            return None
        return int(match[1]) * (1000 if match[2] else 1), int(match[3] or self.neighbours)


@dataclass(frozen=True)
class Metric:
    """A metric by name: `pr50k3_full` is precision and recall with 3 neighbours of 50,000 fakes."""

    name: str
    family: MetricFamily
    num_fake: int
    neighbours: int

    def check(self, num_real: int, detector: Detector) -> None:
        """
        Raises:
            UserError: too few images of either side, or a detector that does not suit.
        """
        for flag, count, least in (
            ("--data", num_real, self.family.least_real + self.neighbours),
            ("--metrics", self.num_fake, self.family.least_fake + self.neighbours),
        ):
            if count < least:
                side = "real" if flag == "--data" else "generated"
                raise UserError(f"{flag}: {self.name} needs at least {least} {side} images, there are {count}")
        if self.family.wants == CLASSIFIER:
            detector.probabilities(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        if self.family.wants == TEACHER and detector.teacher is None:
            raise UserError(
                f"--metrics: {self.name} is a distance of CLIP embeddings, '{detector.name}' gives none; "
                "give a teacher, such as --detector=clip:ViT-L/14@336px"
            )
        if self.family.wants == DEMO and detector.name != DEMO:
            raise UserError(f"--metrics: {self.name} needs the demo teacher; give --detector={DEMO}")

    @property
    def of_paths(self) -> bool:
        """Whether it follows paths through a generator and needs no images."""
        return self.family.measure is None

    def measure(self, inputs: MetricInputs) -> MetricValues:
        """{name or name_suffix: value}, the main value first."""
        assert self.family.measure is not None
        values = self.family.measure(inputs, self.neighbours)
        return {f"{self.name}_{suffix}" if suffix else self.name: value for suffix, value in values.items()}


def _fid(e: MetricInputs, k: int) -> MetricValues:
    return {"": frechet_distance(e.real.moments, e.fake.moments)}


def _kid(e: MetricInputs, k: int) -> MetricValues:
    distance = kernel_distance(e.real.rows, e.fake.rows, seed=e.seed, device=e.device)
    return {"": distance.value, "stderr": distance.standard_error}


def _precision_recall(e: MetricInputs, k: int) -> MetricValues:
    precision, recall = precision_recall(e.real.rows.to(e.device), e.fake.rows.to(e.device), k)
    return {"precision": precision, "recall": recall}


def _density_coverage(e: MetricInputs, k: int) -> MetricValues:
    density, coverage = density_coverage(e.real.rows.to(e.device), e.fake.rows.to(e.device), k)
    return {"density": density, "coverage": coverage}


def _inception_score(e: MetricInputs, k: int) -> MetricValues:
    mean, std = inception_score(e.fake.probabilities)
    return {"mean": mean, "std": std}


def _cmmd(e: MetricInputs, k: int) -> MetricValues:
    real, fake = (F.normalize(sample.rows.to(e.device, torch.float64), dim=1) for sample in (e.real, e.fake))
    return {"": 1000 * float(gaussian_mmd2(real, fake, sigma=10))}


def _memorisation(e: MetricInputs, k: int) -> MetricValues:
    """Calibrated on real images that were not trained on; without any, on each training image and the others."""
    train = e.train.rows.to(e.device)
    unseen = e.real.rows[e.unseen].to(e.device)
    reference = nearest_points(unseen, train).distance if len(unseen) > 1 else nearest_others(train)
    copies = copying(e.nearest_train.distance, reference)
    return {"auc": copies.auc, "share": copies.share, "held_out": float(len(unseen))}


def _diversity(e: MetricInputs, k: int) -> MetricValues:
    """In units of the mean distance of two training images; no `within` where no two fakes share a nearest one."""
    train, fake = e.train.rows.to(e.device), e.fake.rows.to(e.device)
    unit = mean_distance(train)
    if unit == 0:
        raise UserError("--data: the training images are all equal; div measures in their mean distance")
    values = {"overall": mean_distance(fake) / unit}
    within = intra_cluster_distance(fake, e.nearest_train.index)
    return values if math.isnan(within) else values | {"within": within / unit}


def _modes(e: MetricInputs, k: int) -> MetricValues:
    hits = torch.bincount(e.nearest_train.index, minlength=len(e.train))
    return {"share": float((hits > 0).double().mean()), "effective": effective_number(hits) / len(e.train)}


def _attributes(e: MetricInputs, k: int) -> MetricValues:
    """Coverage 1: the same variety as real drawings; exact except for the teacher's errors (2 %)."""
    teacher = load_teacher(DEMO, precision="fp32")
    real, fake = (seen_attributes(teacher, sample.rows) for sample in (e.real, e.fake))
    count = min(len(e.real), len(e.fake))

    def different(seen: dict[str, Tensor]) -> int:
        names = torch.stack([seen[name][:count] for name in ("kind", "colour", "scene")], dim=1)
        return len(names.unique(dim=0))

    values = {"coverage": different(fake) / different(real)}
    for name in ("kind", "colour", "scene"):
        values[f"{name}s"] = effective_number(torch.bincount(fake[name]))
    return values


FAMILIES = (
    MetricFamily("fid{n}_full", "Fréchet distance", _fid, rows=False),
    MetricFamily("kid{n}_full", "unbiased kernel distance, with its standard error", _kid, least_real=4, least_fake=4),
    MetricFamily(
        "pr{n}_full", "precision and recall, of 3 neighbours", _precision_recall, 3, 1, 1, higher_is_better=True
    ),
    MetricFamily(
        "dc{n}_full", "density and coverage, of 5 neighbours", _density_coverage, 5, 1, 1, higher_is_better=True
    ),
    MetricFamily(
        "is{n}",
        "Inception Score",
        _inception_score,
        least_fake=10,
        rows=False,
        wants=CLASSIFIER,
        higher_is_better=True,
    ),
    MetricFamily("ppl2_wend_{n}", "perceptual path length; ppl2_wend is ppl2_wend_50k", None, rows=False),
    MetricFamily("cmmd{n}_full", "MMD on CLIP embeddings, times 1000; the detector is a teacher", _cmmd, wants=TEACHER),
    MetricFamily(
        "mem{n}",
        "whether fakes are nearer to training images than unseen images are (auc 0.5: they are not)",
        _memorisation,
        train=True,
    ),
    MetricFamily(
        "div{n}",
        "distances between fakes: all of them, and those that share a nearest training image",
        _diversity,
        train=True,
        higher_is_better=True,
    ),
    MetricFamily(
        "attr{n}",
        "--data=demo: combinations of kind, colour and scene among the fakes, relative to the same number of drawings",
        _attributes,
        wants=DEMO,
        higher_is_better=True,
    ),
    MetricFamily(
        "modes{n}", "training images that are the nearest to some fake", _modes, train=True, higher_is_better=True
    ),
)
EXAMPLES = (
    *("fid50k_full", "fid5k_full", "kid50k_full", "kid5k_full", "pr50k3_full", "dc50k5_full", "is50k"),
    *("ppl2_wend", "cmmd5k_full", "mem1k", "div1k", "modes1k"),
)
_SHORT = {"ppl2_wend": "ppl2_wend_50k", "cmmd": "cmmd5k_full"}


def parse_metrics(names: str | Sequence[str]) -> list[Metric]:
    """'fid50k_full,kid1k_full' -> metrics; '' and 'none' -> none.

    Raises:
        UserError: an unknown name, with the nearest one.
    """
    words = names.split(",") if isinstance(names, str) else names
    metrics = []
    for name in (word.strip() for word in words):
        if name in ("", "none"):
            continue
        matches = ((family, family.match(_SHORT.get(name, name))) for family in FAMILIES)
        match = next(((family, numbers) for family, numbers in matches if numbers is not None), None)
        if match is None:
            raise UserError(f"--metrics: unknown metric '{name}'{nearest(name, EXAMPLES)} (any number of images)")
        metrics.append(Metric(name, match[0], *match[1]))
    return metrics
