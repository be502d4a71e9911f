"""The options of the distillation and their defaults. Each is also a `--kd-*` flag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd_plugin.config.ranges import FRACTION, SHARE, Range
from kd_plugin.config.schema import option, options_of, out_of_range, parts, to_dict
from kd_plugin.errors import KDError, arg, flag, nearest
from kd_plugin.normalization import NORMS
from kd_plugin.terms import TERMS, TermOptions

__all__ = ["HEADS", "VARIANTS", "VIEWS", "KDConfig", "missing_teacher", "require_numbers", "variant_values"]

HEADS = ("auto", "identity", "linear", "mlp", "orthogonal")
VIEWS = ("auto", "seen", "clean")
CONTROLS = ("none", "shuffle", "scramble")
PREPROCESSES = ("teacher", "release")
LENGTH, STEPS = Range(0, noun="length in kimg"), Range(1, noun="number of steps")
PRECISIONS = ("auto", "fp32", "bf16")  # of a teacher that has a choice


@dataclass(frozen=True)
class KDConfig:
    """The defaults; VARIANTS holds the named alternatives, each a set of values for these options.

    Raises:
        KDError: a value outside its range, or an unknown name.
    """

    teacher: str = option(
        "none",
        "Teacher to distil: none, clip, clip:ViT-L/14, clip:FILE.pt, hf:ORG/MODEL, open_clip:ARCH/TAG, demo, "
        "script:IMAGE_TOWER.pt+TEXTS.npz, MODULE:ATTRIBUTE (runs your code); several joined by +",
        metavar="SPEC",
        group="Distillation",
    )
    terms: Mapping[str, TermOptions] = parts(lambda: {name: TERMS[name].Options for name in TERMS})
    p: float = option(0.0, "Probability that a step also matches the crossed pairs", metavar="[0,1]", range=SHARE)
    balance: float = option(
        0.3,
        "Scale the terms of D so that their gradient at the tapped feature is this fraction of the adversarial one; "
        "0: weights as given",
        FRACTION,
        metavar="FRACTION",
    )
    warmup: float = option(0.0, "Ramp the terms of D up to their weights over the first KIMG", LENGTH, metavar="KIMG")
    until: float = option(
        0.0,
        "Ramp the terms of D down to 0 over the first KIMG; after that they cost nothing; 0: never",
        LENGTH,
        metavar="KIMG",
    )
    every: int = option(1, "Distil every N-th D step with N times the weight (cheaper)", STEPS, metavar="N")
    control: str = option(
        "none",
        "Control experiment: shuffle gives D other images' embeddings; scramble permutes the teacher's weights, so "
        "that it knows nothing. A gain that the control shares is not distillation",
        choices=CONTROLS,
    )
    layer: str = option(
        "b4.fc",
        "Discriminator layer whose output is the student feature; the outputs of several are concatenated",
        metavar="NAME[,NAME]",
    )
    head: str = option(
        "auto",
        "Map from the student feature to the teacher's width; auto: identity if they agree, else linear",
        choices=HEADS,
    )
    norm: str = option(
        "standardise",
        "What AGKD compares: raw embeddings, unit length, or standardised or whitened by running statistics",
        choices=NORMS,
    )
    centre: bool = option(True, "Subtract the teacher's mean embedding before CGKD's correlations are formed")
    view: str = option(
        "auto",
        "What the teacher sees: seen (the augmented images D saw), clean, or auto: clean where the host gives such "
        "images, as train.py does",
        choices=VIEWS,
    )
    preprocess: str = option(
        "teacher",
        "Preprocessing: the teacher's, or the published code's (nearest-neighbour resize, pixels in [-1, 1])",
        choices=PREPROCESSES,
    )
    precision: str = option(
        "auto",
        "Number type of a CLIP teacher; auto: bf16 on CUDA, and on a CPU if it is measured to be faster",
        choices=PRECISIONS,
    )
    prompts: str | None = option(
        None,
        "Text file with one prompt per line; auto: choose from 414 texts those that distinguish the training images",
        metavar="FILE|auto",
        shown_default="the dataset's class names, else its name",
    )
    template: str = option("a photo of {}", "Template that turns a class name ('a cat') into a prompt", metavar="TEXT")

    def __post_init__(self) -> None:
        require_numbers(to_dict(self))
        if self.template.count("{}") != 1:
            raise KDError(f"{arg('template', self.template)} must contain {{}} once, in place of the class name")
        if not self.layers:
            raise KDError(f"{arg('layer')}: no layer was named; give one, such as b4.fc")
        for item in options_of(KDConfig):
            if item.choices and item.is_in(self) and (value := item.value_in(self)) not in item.choices:
                raise KDError(f"{arg(item.key, value)} is unknown; choose one of {', '.join(item.choices)}")

    @property
    def enabled(self) -> bool:
        return self.teacher != "none"

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.layer.split(",") if name.strip())

    @property
    def active_terms(self) -> dict[str, TermOptions]:
        """The terms that are computed, by name."""
        return {name: options for name, options in self.terms.items() if options.active}

    def terms_that_need(self, what: str) -> list[str]:
        """The active terms that need `what`, a field of Needs."""
        return [name for name in self.active_terms if getattr(TERMS[name].needs, what)]

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term; 0 for one that is off."""
        return {name: options.weight if options.active else 0.0 for name, options in self.terms.items()}


def require_numbers(values: Mapping[str, Any]) -> None:
    """
    Args:
        values: some of the options, by key.

    Raises:
        KDError: a number that is not in its range.
    """
    for item, value, expected in out_of_range(KDConfig, values):
        number = "" if item.kind is int else "a number of " if expected.startswith("at ") else "a number "
        raise KDError(f"{arg(item.key, value)} is not a {item.range.noun}; give {number}{expected}")


# The published configurations, as options of KDConfig. Source: the paper, its release, and
# VkD (CVPR 2024; orthogonal projection, normalised teacher).
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
    "critic": 0.0,
}  # in all published configurations


def variant_values(name: str | None) -> dict[str, Any]:
    """The options of a published configuration, by key; none for None.

    Raises:
        KDError: an unknown name.
    """
    if name is None:
        return {}
    if name not in VARIANTS:
        raise KDError(
            f"{arg('variant', name)} is unknown{nearest(str(name), VARIANTS)}; choose one of {', '.join(VARIANTS)}"
        )
    return {**_SHARED, **VARIANTS[name]}


def missing_teacher(config: KDConfig, given: Mapping[str, Any], variant: str | None) -> str:
    """The error message for options of the distillation without a teacher; empty if there is nothing to say.

    An explicit `--kd=none` accepts them, so that a baseline is the same command with another teacher.

    Args:
        config: the result.
        given: the options that the user named on the command line.
        variant: the published configuration that the user named.
    """
    if config.enabled or "teacher" in given or not (given or variant):
        return ""
    return (
        f"{flag(next(iter(given), 'variant'))}: no teacher was given, so nothing would be distilled; give --kd, such "
        "as --kd=clip, or --kd=none for the baseline"
    )
