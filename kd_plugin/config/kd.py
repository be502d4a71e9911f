"""What can be chosen about the distillation, and its defaults. Each field is also a `--kd-*` flag."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd_plugin.config.schema import option
from kd_plugin.errors import KDError, nearest
from kd_plugin.normalization import NORMS
from kd_plugin.terms import DISTANCES, reads_texts

__all__ = ["HEADS", "VARIANTS", "VIEWS", "KDConfig", "check_weight", "variant_values"]

HEADS = ("auto", "identity", "linear", "mlp", "orthogonal")
VIEWS = ("seen", "clean")
CONTROLS = ("none", "shuffle", "scramble")
PLACES = ("generator", "student", "off")  # where the diversity term acts
PREPROCESSES = ("teacher", "release")
PRECISIONS = ("auto", "fp32", "bf16")  # of a teacher that has a choice


def check_weight(name: str, weight: float) -> None:
    """Raises KDError unless `weight` is finite and not negative."""
    if not (math.isfinite(weight) and weight >= 0):
        raise KDError(f"--kd-{name}: {weight} is not a weight; give a number of at least 0")


@dataclass(frozen=True)
class KDConfig:
    """The defaults; VARIANTS holds the named alternatives, each a set of values for these fields.

    Raises:
        KDError: a weight that is negative or not finite, p outside [0, 1], an unknown head, distance, control or view.
    """

    teacher: str = option(
        "none",
        "Teacher to distil: none, clip, clip:ViT-L/14, clip:FILE.pt, hf:ORG/MODEL, open_clip:ARCH/TAG, demo, "
        "script:IMAGE_TOWER.pt+TEXTS.npz, MODULE:ATTRIBUTE (runs your code); several joined by +",
        flag="--kd",
        metavar="SPEC",
        group="Distillation",
    )
    agkd: float = option(1.0, "Weight of aggregated distillation (image embeddings)", metavar="WEIGHT")
    cgkd: float = option(1.0, "Weight of correlated distillation (image-text correlations)", metavar="WEIGHT")
    diversity: float = option(0.0, "Weight of the diversity term", metavar="WEIGHT")
    diversity_on: str = option(
        "generator",
        "What the diversity term acts on: the generator, through the frozen teacher; or D's own features of fakes",
        choices=PLACES,
    )
    match: float = option(
        1.0,
        "Weight of the matching term: the generator is taught to give images whose embeddings are distributed as those "
        "of the real images",
        metavar="WEIGHT",
    )
    match_pull: float = option(
        1.0,
        "Scale the matching term up where its gradient at the generator's images is less than this fraction of the "
        "adversarial one; 0: its weight as given",
        metavar="FRACTION",
    )
    p: float = option(0.0, "Probability that a step also matches the crossed pairs", metavar="[0,1]")
    balance: float = option(
        0.3,
        "Scale the terms of D so that their gradient at the tapped feature is this fraction of the adversarial one; "
        "0: weights as given",
        metavar="FRACTION",
    )
    warmup: float = option(0.0, "The terms of D grow to their weights over the first KIMG", metavar="KIMG")
    until: float = option(
        0.0, "The terms of D shrink to nothing over the first KIMG, and cost nothing after; 0: never", metavar="KIMG"
    )
    every: int = option(
        1, "Distil in one of this many steps of D, with as many times the weight: costs less", metavar="STEPS"
    )
    control: str = option(
        "none",
        "What a run gains with it is no distillation. shuffle: D is taught other images' embeddings; scramble: the "
        "teacher's weights are permuted, so that it knows nothing",
        choices=CONTROLS,
    )
    layer: str = option(
        "b4.fc",
        "Discriminator layer whose output is the student feature; of several, the outputs are joined",
        metavar="NAME[,NAME]",
    )
    head: str = option(
        "auto", "Student feature to teacher width; auto: identity where they agree, else linear", choices=HEADS
    )
    distance: str = option(
        "l1",
        "Of agkd: l1 or mse (means over batch and width), l2 (mean of the rows' norms), sse (sum of squares)",
        choices=DISTANCES,
    )
    cgkd_distance: str = option("l1", "Of cgkd: the same, over prompts in place of width", choices=DISTANCES)
    norm: str = option(
        "standardise",
        "What agkd compares: embeddings as they are, of unit length, or standardised or whitened by running statistics",
        choices=NORMS,
    )
    centre: bool = option(True, "Subtract the teacher's mean embedding before cgkd's correlations are formed")
    view: str = option("seen", "What the teacher is shown: seen (the augmented images D saw) or clean", choices=VIEWS)
    preprocess: str = option(
        "teacher",
        "The teacher's own, or the published release's: nearest-neighbour resize and pixels in [-1, 1]",
        choices=PREPROCESSES,
    )
    precision: str = option(
        "auto",
        "Number type of a CLIP teacher; auto: bf16 on CUDA, and on a CPU where it is measured to be faster",
        choices=PRECISIONS,
    )
    prompts: str | None = option(
        None,
        "Text file with one prompt a line; auto: of 414 texts, those that tell the training images apart",
        metavar="FILE|auto",
        shown_default="the dataset's class names, else its name",
    )
    template: str = option("a photo of {}", "What a class name ('a cat') becomes as a prompt", metavar="TEXT")

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_weight(name, weight)
        for name, kimg in (("warmup", self.warmup), ("until", self.until)):
            if not (math.isfinite(kimg) and kimg >= 0):
                raise KDError(f"--kd-{name}: {kimg} kimg was given, it must be at least 0")
        if self.every < 1:
            raise KDError(f"--kd-every: {self.every} was given, it must be at least 1")
        if self.template.count("{}") != 1:
            raise KDError(f"--kd-template: '{self.template}' must hold {{}} once, where the class name goes")
        if not self.layers:
            raise KDError("--kd-layer: no layer was named; give one, such as b4.fc")
        for name, fraction in (("balance", self.balance), ("match-pull", self.match_pull)):
            if not (math.isfinite(fraction) and fraction >= 0):
                raise KDError(f"--kd-{name}: {fraction} is not a fraction; give a number of at least 0, such as 0.3")
        if not 0 <= self.p <= 1:
            raise KDError(f"--kd-p: {self.p} is not a probability; give a number from 0 to 1")
        for name, known in (
            ("head", HEADS),
            ("distance", DISTANCES),
            ("cgkd_distance", DISTANCES),
            ("norm", NORMS),
            ("control", CONTROLS),
            ("diversity_on", PLACES),
            ("preprocess", PREPROCESSES),
            ("view", VIEWS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                flag = f"--kd-{name.replace('_', '-')}"
                raise KDError(f"{flag}: '{getattr(self, name)}' is unknown; choose one of {', '.join(known)}")

    @property
    def enabled(self) -> bool:
        return self.teacher != "none"

    @property
    def needs_texts(self) -> bool:
        """Whether a term compares images with prompts."""
        return any(weight > 0 and reads_texts(name) for name, weight in self.weights.items())

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.layer.split(",") if name.strip())

    @property
    def distances(self) -> dict[str, str]:
        """The distance of every term of the discriminator, by the term's name."""
        return {"agkd": self.distance, "cgkd": self.cgkd_distance}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term, by name."""
        diversity = 0.0 if self.diversity_on == "off" else self.diversity
        return {"agkd": self.agkd, "cgkd": self.cgkd, "diversity": diversity, "match": self.match}


# The published forms: values for KDConfig. Source: design notes on the paper, its release, and VkD (docs/design.md).
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "agkd": 1.0,
        "cgkd": 1.0,
        "diversity": 1.0,
        "diversity_on": "generator",
        "p": 0.7,
        "head": "auto",
        "distance": "l1",
        "cgkd_distance": "l1",
        "norm": "none",
        "preprocess": "teacher",
        "template": "a photo of {}",
    },
    "release": {
        "agkd": 10.0,
        "cgkd": 10.0,
        "diversity_on": "off",
        "p": 1.0,
        "head": "mlp",
        "distance": "l2",
        "cgkd_distance": "sse",
        "norm": "none",
        "preprocess": "release",
        "template": "{}",
    },
    "orthogonal": {
        "agkd": 1.0,
        "cgkd": 0.0,
        "diversity_on": "off",
        "p": 0.0,
        "head": "orthogonal",
        "distance": "mse",
        "norm": "whiten",
        "preprocess": "teacher",
    },
}
_SHARED = {
    "balance": 0.0,
    "warmup": 0.0,
    "until": 0.0,
    "every": 1,
    "centre": False,
    "view": "seen",
    "match": 0.0,
    "match_pull": 0.0,
}  # by all published forms


def variant_values(name: str | None) -> dict[str, Any]:
    """The values of a named variant; none for None.

    Raises:
        KDError: an unknown name.
    """
    if name is None:
        return {}
    if name not in VARIANTS:
        raise KDError(
            f"--kd-variant: '{name}' is unknown{nearest(name, VARIANTS)}; choose one of {', '.join(VARIANTS)}"
        )
    return {**_SHARED, **VARIANTS[name]}
