"""What can be chosen about the distillation, and its defaults. Each field is also a `--kd-*` flag."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kd_plugin.errors import KDError
from kd_plugin.losses.distances import DISTANCES
from kd_plugin.options import option

__all__ = ["HEADS", "VIEWS", "KDConfig", "check_weight"]

HEADS = ("auto", "identity", "linear", "mlp", "orthogonal")
VIEWS = ("seen", "clean")
CONTROLS = ("none", "shuffle")
PRECISIONS = ("auto", "fp32", "bf16")  # of a teacher that has a choice


def check_weight(name: str, weight: float) -> None:
    """Raises KDError unless `weight` is finite and not negative."""
    if not (math.isfinite(weight) and weight >= 0):
        raise KDError(f"--kd-{name}: {weight} is not a weight; give a number of at least 0")


@dataclass(frozen=True)
class KDConfig:
    """The `paper` variant of KD-DLGAN.

    Raises:
        KDError: a weight that is negative or not finite, p outside [0, 1], an unknown head, distance, control or view.
    """

    teacher: str = option(
        "none",
        "Teacher to distil: none, clip, clip:ViT-B/32, clip:FILE.pt, demo, script:IMAGE_TOWER.pt+TEXTS.npz",
        flag="--kd",
        metavar="SPEC",
        group="Distillation",
    )
    agkd: float = option(
        1.0,
        "Weight of aggregated distillation (image embeddings)",
        metavar="WEIGHT",
        shown_default="1.0; --cfg=demo has its own",
    )
    cgkd: float = option(1.0, "Weight of correlated distillation (image-text correlations)", metavar="WEIGHT")
    diversity: float = option(
        0.0, "Weight of the diversity term on the generator, through the frozen teacher", metavar="WEIGHT"
    )
    p: float = option(
        0.7,
        "Probability that a step also matches the crossed pairs",
        metavar="[0,1]",
        shown_default="0.7; --cfg=demo has its own",
    )
    balance: float = option(
        0.0,
        "Scale the terms of D so that their gradient at the tapped feature is this fraction of the adversarial one; "
        "0: weights as given",
        metavar="FRACTION",
    )
    control: str = option(
        "none",
        "shuffle: each image is taught another one's embedding; what such a run gains is no distillation",
        choices=CONTROLS,
    )
    layer: str = option("b4.fc", "Discriminator layer whose output is the student feature", metavar="NAME")
    head: str = option(
        "auto", "Student feature to teacher width; auto: identity where they agree, else linear", choices=HEADS
    )
    distance: str = option(
        "l1",
        "Of agkd: l1 or mse (means over batch and width), l2 (mean of the rows' norms), sse (sum of squares)",
        choices=DISTANCES,
    )
    cgkd_distance: str = option("l1", "Of cgkd: the same, over prompts in place of width", choices=DISTANCES)
    view: str = option("seen", "What the teacher is shown: seen (the augmented images D saw) or clean", choices=VIEWS)
    precision: str = option(
        "auto",
        "Number type of a CLIP teacher; auto: bf16 on CUDA, and on a CPU where it is measured to be faster",
        choices=PRECISIONS,
    )
    prompts: str | None = option(
        None,
        "Text file with one prompt a line",
        metavar="FILE",
        shown_default="the dataset's class names, else its name",
    )

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_weight(name, weight)
        if not (math.isfinite(self.balance) and self.balance >= 0):
            raise KDError(f"--kd-balance: {self.balance} is not a fraction; give a number of at least 0, such as 0.3")
        if not 0 <= self.p <= 1:
            raise KDError(f"--kd-p: {self.p} is not a probability; give a number from 0 to 1")
        for name, known in (
            ("head", HEADS),
            ("distance", DISTANCES),
            ("cgkd_distance", DISTANCES),
            ("control", CONTROLS),
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
    def distances(self) -> dict[str, str]:
        """The distance of every term of the discriminator, by the term's name."""
        return {"agkd": self.distance, "cgkd": self.cgkd_distance}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term, by name: the discriminator's two and the generator's `diversity`."""
        return {"agkd": self.agkd, "cgkd": self.cgkd, "diversity": self.diversity}
