"""What can this discriminator learn from this teacher about these images? Asked before a training, in about a minute.

Each candidate layer and head is trained for distillation alone on most of the images, and judged on the others: what is
explained there is knowledge, what is explained only in training is memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_plugin.errors import KDError
from kd_plugin.functional import correlations
from kd_plugin.probe.pupil import Inputs, Pupil
from kd_plugin.prompts.selection import select_prompts_by_embeddings
from kd_plugin.student.heads import student_width
from kd_plugin.student.layers import list_layers
from kd_plugin.student.tap import inside
from kd_plugin.teachers.image_input import rgb
from kd_plugin.teachers.precision import least_seconds
from kd_plugin.teachers.protocol import Teacher

__all__ = ["Knowledge", "Report", "Trial", "probe_teacher"]

HELD_OUT = 0.2  # of the images
LEAST_IMAGES, MOST_IMAGES = 10, 500  # more than this tell no more
SECONDS = 60.0
MOST_STEPS, LEAST_STEPS = 600, 50  # of a trial; fewer tell nothing
HEADS = ("mlp", "orthogonal")  # tried at the best layer, beside the linear one
BLOCKS = 3  # of the discriminator, from the end, whose last layers are tried
RELIABLE = 0.5  # below, the teacher tells images apart hardly better than an image from its own mirrored, shifted self
NOTHING = 0.01  # share explained on held-out images up to which nothing was learned


@dataclass(frozen=True)
class Trial:
    """One layer and head, after `steps` steps of distillation alone: the shares explained."""

    layer: str
    head: str
    training: float
    held_out: float
    steps: int


@dataclass(frozen=True)
class Knowledge:
    """What the teacher says of these images.

    constant:    share of the embeddings' energy that all images have in common.
    directions:  effective number of directions in which they differ: exp of the entropy of the variances.
    reliability: 1 - variance between an image and itself mirrored and shifted / variance between images.
    """

    constant: float
    directions: float
    reliability: float


@dataclass(frozen=True)
class Report:
    """What `probe_teacher` found.

    trials:     in the order in which they were made; those that fitted into the time.
    prompts:    the texts that tell these images apart; empty for a teacher without a text side.
    flat:       share of the correlations with these prompts that is the same for all images; None without prompts.
    step_cost:  seconds of the teacher's pass over a step's images (real and fake), and of D's own step on them.
    needed:     seconds that all trials of the least length take.
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
        """One sentence."""
        best = self.best
        if best is None:
            return (
                f"{self.teacher} {'tells' if self.tells_apart else 'hardly tells'} these images apart; what this "
                f"discriminator can learn of it was not tried: that takes {self.needed:.0f} seconds (--seconds, in "
                "train.py --kd-probe)"
            )
        if best.held_out > NOTHING:
            return f"the discriminator can learn {best.held_out:.0%} of what {self.teacher} says of such images"
        if not self.tells_apart:
            return f"{self.teacher} knows nothing about these images: to it they are nearly all the same"
        return (
            f"in {best.steps} steps this discriminator learned nothing from {self.teacher} that holds on images it has "
            "not seen; more seconds or more images may help, else let the teacher teach the generator alone"
        )

    def flags(self) -> tuple[str, ...]:
        """Of `train.py`, or, without the dashes, options of `attach`: what the trials speak for.

        Where nothing could be learned they turn off the terms of D, which leaves the matching of the generator; a
        teacher that does not tell the images apart has nothing to teach it either.
        """
        best = self.best
        if best is None or (best.held_out <= NOTHING and not self.tells_apart):
            return ()
        if best.held_out <= NOTHING:
            return "--kd-agkd=0", "--kd-cgkd=0"
        texts = "--kd-prompts=auto" if self.prompts else "--kd-cgkd=0"
        return f"--kd-layer={best.layer}", f"--kd-head={best.head}", texts

    def lines(self) -> list[str]:
        """For people to read."""
        known = self.knowledge
        found = [
            f"Teacher:     {self.teacher}, {self.images} images",
            f"             {known.constant:.0%} of its embeddings is the same for all of them; they differ in about "
            f"{known.directions:.0f} directions",
            f"             reliability {known.reliability:.2f} (1: it tells images apart; 0: no better than an image "
            "from itself, mirrored and shifted)",
        ]
        if self.trials:
            steps = self.trials[0].steps
            found += [
                f"Learnable:   share of the teacher that the discriminator explains, after {steps} steps",
                f"             {'layer':<24}{'head':<12}{'training':>9}{'held out':>10}",
            ]
        for trial in self.trials:
            mark = "  <- best" if trial is self.best else ""
            found.append(
                f"             {trial.layer:<24}{trial.head:<12}{trial.training:>9.1%}{trial.held_out:>10.1%}{mark}"
            )
        if self.flat is not None:
            found.append(
                f"Prompts:     these tell the images apart; {self.flat:.0%} of the correlations is the same for all"
            )
            found.extend(f"             {text}" for text in self.prompts[:8])
        teacher, own = self.step_cost
        found += [
            f"Cost:        the teacher takes {teacher * 1000:.0f} ms a step (view seen; clean: about half), the "
            f"discriminator {own * 1000:.0f} ms",
            f"Verdict:     {self.verdict}",
        ]
        if self.flags():
            found.append(f"To try:      {' '.join(self.flags())}")
        return found


def probe_teacher(
    discriminator: nn.Module,
    teacher: Teacher,
    images: Tensor,
    *,
    inputs: Inputs = lambda x: (x,),
    batch: int = 16,
    seconds: float = SECONDS,
    steps: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """
    Args:
        discriminator: D, freshly made or trained; copies of it are trained, it stays as it is.
        teacher: on D's device.
        images: [N, C, H, W] in [-1, 1], on D's device; a fifth of them is held out.
        inputs: what D is called with on images: (images,), or with labels.
        batch: images a step.
        seconds: for all trials together, about; those for which 50 steps do not fit are left out.
        steps: of each trial; by default as many as the time allows, at most 600.
        seed: of the split, of the heads, and of the order of the images.
        say: called with a line before each thing that takes time.

    Raises:
        KDError: fewer than 10 images, no time, or D has no layer that can be tapped.
    """
    if len(images) < LEAST_IMAGES:
        raise KDError(f"{len(images)} images are too few to hold some out; give at least {LEAST_IMAGES}")
    if seconds <= 0:
        raise KDError(f"--seconds: {seconds} was given, it must be above 0")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
    held_out = max(int(len(images) * HELD_OUT), 2)
    say(f"{teacher.name} looks at {len(images)} images, each three times")
    embeddings = _embed(teacher, images, 2 * batch)
    begun = time.perf_counter()
    mirrored = _embed(teacher, images.flip(3), 2 * batch)
    float(mirrored.sum())  # an accelerator has finished
    pass_cost = (time.perf_counter() - begun) * 2 * batch / len(images)
    knowledge = _knowledge(teacher, images, embeddings, 2 * batch)
    task = _Task(images, embeddings, mirrored, order[held_out:], order[:held_out], inputs, batch, seed)

    layers = _candidates(discriminator, images[:2], inputs)
    step = task.seconds_of_a_step(discriminator, layers[0])
    asked = len(layers) + len(HEADS)
    fitting, steps = what_fits(seconds, step, asked) if steps is None else (asked, steps)
    trials: list[Trial] = []
    if fitting:
        say(f"{fitting} trials of {steps} steps, about {fitting * steps * step:.0f} seconds")
        trials = [task.attempt(discriminator, layer, "linear", steps) for layer in layers[:fitting]]
        best = max(trials, key=lambda trial: trial.held_out)
        trials += [task.attempt(discriminator, best.layer, head, steps) for head in HEADS[: fitting - len(trials)]]

    prompts: tuple[str, ...] = ()
    flat = None
    if teacher.vocabulary != ():
        prompts = tuple(select_prompts_by_embeddings(teacher, embeddings))
        with torch.no_grad():
            rows = correlations(embeddings, teacher.embed_texts(prompts).to(embeddings))
        flat = _constant(rows)
    cost, needed = (pass_cost, 2 * step), asked * LEAST_STEPS * step
    return Report(teacher.name, len(images), knowledge, tuple(trials), prompts, flat, cost, needed)


def what_fits(seconds: float, step: float, candidates: int) -> tuple[int, int]:
    """How many trials, and of how many steps; rather fewer trials than too few steps."""
    trials = min(int(seconds / (LEAST_STEPS * step)), candidates)
    return trials, min(int(seconds / (trials * step)), MOST_STEPS) if trials else 0


@dataclass(frozen=True)
class _Task:
    images: Tensor
    embeddings: Tensor  # [N, E]
    mirrored: Tensor  # [N, E], of the images flipped left to right
    training: Tensor  # indices
    held_out: Tensor
    inputs: Inputs
    batch: int
    seed: int

    def attempt(self, discriminator: nn.Module, layer: str, head: str, steps: int) -> Trial:
        """Trains a copy of D for distillation alone."""
        pupil = self._pupil(discriminator, layer, head)
        draws = torch.Generator().manual_seed(self.seed)
        for _ in range(steps):
            rows = self.training[torch.randint(len(self.training), [self.batch], generator=draws).to(self.training)]
            if torch.rand((), generator=draws) < 0.5:
                pupil.learn(self.images[rows].flip(3), self.mirrored[rows])
            else:
                pupil.learn(self.images[rows], self.embeddings[rows])
        training, held_out = (
            pupil.share(self.images[rows], self.embeddings[rows]) for rows in (self.training, self.held_out)
        )
        return Trial(layer, head, training, held_out, steps)

    def seconds_of_a_step(self, discriminator: nn.Module, layer: str) -> float:
        pupil, rows = self._pupil(discriminator, layer, "linear"), self.training[: self.batch]
        return least_seconds(lambda: float(pupil.learn(self.images[rows], self.embeddings[rows])), times=2)

    def _pupil(self, discriminator: nn.Module, layer: str, head: str) -> Pupil:
        known = self.embeddings[self.training]
        return Pupil(discriminator, layer, head, known, self.inputs, self.batch, self.seed)


def _candidates(discriminator: nn.Module, images: Tensor, inputs: Inputs) -> list[str]:
    """The suggested layer, the last layers of the blocks before it, and the suggested one with its neighbour."""
    discriminator = inside(discriminator)
    found = list_layers(discriminator, *inputs(images))
    end = next((place for place, layer in enumerate(found) if layer.suggested), len(found) - 1)
    names = [layer.name for layer in found[: end + 1]]
    names = [name for name in names if student_width(discriminator.get_submodule(name)) is not None]
    if not names:
        raise KDError("the discriminator has no layer that tells its width; see kd_plugin.list_layers")
    blocks = {name.rpartition(".")[0] for name in names}
    last: dict[str, str] = {}
    for name in names:  # the last layer of each block; where there are no blocks, every layer
        block = name.rpartition(".")[0] if len(blocks) > 1 else name
        last.pop(block, None)
        last[block] = name
    tried = list(last.values())[-BLOCKS:][::-1]
    return [*tried, f"{tried[1]},{tried[0]}"] if len(tried) > 1 else tried


def _knowledge(teacher: Teacher, images: Tensor, embeddings: Tensor, batch: int) -> Knowledge:
    away = (embeddings - embeddings.mean(dim=0)).double()
    variances = torch.linalg.svdvals(away.cpu()).square()
    shares = variances / variances.sum().clamp_min(1e-30)
    shares = shares[shares > 0]
    shift = max(images.shape[3] // 16, 1)
    moved = torch.roll(images.flip(3), (shift, shift), dims=(2, 3))
    again = _embed(teacher, moved, batch).double()
    within = (again - embeddings.double()).square().sum(dim=1).mean() / 2
    between = away.square().sum(dim=1).mean()
    directions = float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 0.0
    return Knowledge(_constant(embeddings), directions, float(1 - within / between) if between > 0 else 0.0)


def _constant(rows: Tensor) -> float:
    """The share of the energy of [N, K] that all rows have in common."""
    return float(rows.mean(dim=0).square().sum() / rows.square().sum(dim=1).mean())


def _embed(teacher: Teacher, images: Tensor, batch: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([teacher.embed_images(rgb(part)) for part in torch.split(images, batch)])
