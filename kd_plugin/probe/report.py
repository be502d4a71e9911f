"""What the probe measured, and its report in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Knowledge", "Report", "Trial"]

RELIABLE = 0.5  # below, the teacher tells images apart hardly better than an image from its own mirrored, shifted copy
LEARNED_NOTHING = 0.01  # fraction explained on held-out images up to which nothing was learned


@dataclass(frozen=True)
class Trial:
    """One layer and head after `steps` steps of distillation alone.

    training, held_out: fraction of the teacher's variation that D predicts on training and on held-out images.
    """

    layer: str
    head: str
    training: float
    held_out: float
    steps: int


@dataclass(frozen=True)
class Knowledge:
    """How the teacher's embeddings of these images vary.

    constant:    fraction of the embeddings' energy that all images have in common.
    directions:  effective number of directions in which they differ: exp of the entropy of the variances.
    reliability: 1 - variance between an image and itself mirrored and shifted / variance between images.
    stages:      the same of the mean features of each stage that matching would use; empty if the teacher has none.
    """

    constant: float
    directions: float
    reliability: float
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The result of `probe_teacher`.

    trials:     in the order in which they ran; those that fitted into the time.
    prompts:    the texts that tell these images apart; empty for a teacher without a text encoder.
    flat:       fraction of the correlations with these prompts that all images share; None without prompts.
    step_cost:  seconds of the teacher's pass over a step's images (real and fake), and of D's step on them.
    needed:     seconds that all trials of the minimum length take.
    """

    teacher: str
    images: int
    knowledge: Knowledge
    trials: tuple[Trial, ...]
    prompts: tuple[str, ...]
    flat: float | None
    step_cost: tuple[float, float]
    needed: float

    @property
    def best(self) -> Trial | None:
        return max(self.trials, key=lambda trial: trial.held_out, default=None)

    @property
    def tells_apart(self) -> bool:
        return self.knowledge.reliability >= RELIABLE

    @property
    def verdict(self) -> str:
        """The conclusion, in one sentence."""
        best = self.best
        if best is None:
            return (
                f"{self.teacher} {'tells' if self.tells_apart else 'hardly tells'} these images apart; there was no "
                f"time to test what this discriminator can learn from it: that takes {self.needed:.0f} seconds "
                "(--seconds, in train.py --kd-probe)"
            )
        if best.held_out > LEARNED_NOTHING:
            return (
                f"the discriminator can predict {best.held_out:.0%} of the variation of {self.teacher}'s embeddings of "
                "unseen images"
            )
        if not self.tells_apart:
            return f"{self.teacher} does not tell these images apart: their embeddings are nearly equal"
        return (
            f"in {best.steps} steps this discriminator learned nothing from {self.teacher} that holds on unseen "
            "images; more seconds or more images may help, otherwise use the teacher for the generator only"
        )

    def flags(self) -> tuple[str, ...]:
        """The suggested flags of `train.py` (without the leading `--kd-`: options of `attach`).

        If D learned nothing, its terms are turned off, which leaves those of G; if the teacher does not
        tell the images apart either, nothing is suggested.
        """
        best = self.best
        if best is None or (best.held_out <= LEARNED_NOTHING and not self.tells_apart):
            return ()
        if best.held_out <= LEARNED_NOTHING:
            return "--kd-agkd=0", "--kd-cgkd=0"
        texts = "--kd-prompts=auto" if self.prompts else "--kd-cgkd=0"
        return f"--kd-layer={best.layer}", f"--kd-head={best.head}", texts

    def lines(self) -> list[str]:
        """The report as text."""
        known = self.knowledge
        lines = [
            f"Teacher:     {self.teacher}, {self.images} images",
            f"             all of them share {known.constant:.0%} of the embeddings' energy; they differ in about "
            f"{known.directions:.0f} directions",
            f"             reliability {known.reliability:.2f} (1: it tells images apart; 0: no better than an image "
            "from its own mirrored and shifted copy)",
        ]
        if known.stages:
            rows = ", ".join(f"{name} {reliability:.2f}" for name, reliability in known.stages.items())
            lines.append(f"             its stages (--kd-match-on): {rows}")
        if self.trials:
            steps = self.trials[0].steps
            lines += [
                f"Learnable:   fraction of the teacher's variation that the discriminator predicts after {steps} steps",
                f"             {'layer':<24}{'head':<12}{'training':>9}{'held out':>10}",
            ]
        for trial in self.trials:
            mark = "  <- best" if trial is self.best else ""
            lines.append(
                f"             {trial.layer:<24}{trial.head:<12}{trial.training:>9.1%}{trial.held_out:>10.1%}{mark}"
            )
        if self.flat is not None:
            lines.append(
                f"Prompts:     these tell the images apart; {self.flat:.0%} of the correlations is common to all images"
            )
            lines.extend(f"             {text}" for text in self.prompts[:8])
        teacher, discriminator = self.step_cost
        lines += [
            f"Cost:        the teacher takes {teacher * 1000:.0f} ms a step (view seen; clean: about half), the "
            f"discriminator {discriminator * 1000:.0f} ms",
            f"Verdict:     {self.verdict}",
        ]
        if self.flags():
            lines.append(f"Try:         {' '.join(self.flags())}")
        return lines
