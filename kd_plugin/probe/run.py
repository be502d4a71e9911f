"""Probe a teacher before training: measure what a discriminator can learn from it, in about a minute.

Candidate layers and heads are trained on distillation alone on most of the images and judged on the rest: what D
predicts there is knowledge, what it predicts only in training is memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_plugin.errors import KDError
from kd_plugin.functional import correlations
from kd_plugin.probe.report import Knowledge, Report, Trial
from kd_plugin.probe.trial import Inputs, TrialOptions, Trials
from kd_plugin.prompts.selection import select_prompts_by_embeddings
from kd_plugin.student.features import student_width
from kd_plugin.student.layers import list_layers
from kd_plugin.student.wrapped import inside
from kd_plugin.teachers.image_input import rgb
from kd_plugin.teachers.protocol import HasStages, Teacher
from kd_plugin.terms.stage_choice import spread

__all__ = ["probe_teacher"]

HELD_OUT = 0.2  # of the images
MIN_IMAGES, MAX_IMAGES = 10, 500  # more images change nothing
SECONDS = 60.0
MIN_STEPS, MAX_STEPS = 50, 600  # of a trial; fewer show nothing
HEADS = ("mlp", "orthogonal")  # tried at the best layer, after the linear one
BLOCKS = 3  # of the discriminator, from the end, whose last layers are tried


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
    on_message: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure how the teacher's embeddings vary and what D can learn of them.

    Args:
        discriminator: D, freshly made or trained; copies of it are trained, D itself is not changed.
        teacher: on D's device.
        images: [N, C, H, W] in [-1, 1], on D's device; a fifth of them is held out.
        inputs: what D is called with on images: (images,), or with labels.
        batch: images a step.
        seconds: for all trials together, approximately; trials for which 50 steps do not fit are left out.
        steps: of each trial; by default what the time allows, at most 600.
        seed: of the split, of the heads, and of the order of the images.
        on_message: called with a line before each thing that takes time.

    Raises:
        KDError: fewer than 10 images, no time, or D has no layer that can be tapped.
    """
    if len(images) < MIN_IMAGES:
        raise KDError(f"{len(images)} images are too few to hold some out; give at least {MIN_IMAGES}")
    if seconds <= 0:
        raise KDError(f"--seconds: {seconds} was given, it must be above 0")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
    held_out = max(int(len(images) * HELD_OUT), 2)
    on_message(f"{teacher.name} embeds {len(images)} images, each three times")
    embeddings, *stages = _embed(teacher, images, 2 * batch, _stages(teacher))
    begun = time.perf_counter()
    (mirrored,) = _embed(teacher, images.flip(3), 2 * batch)
    float(mirrored.sum())  # waits for an accelerator
    pass_cost = (time.perf_counter() - begun) * 2 * batch / len(images)

    options = TrialOptions(inputs, batch, seed)
    task = Trials(images, embeddings, mirrored, order[held_out:], order[:held_out], options)
    layers = _candidates(discriminator, images[:2], inputs)
    step = task.seconds_of_a_step(discriminator, layers[0])
    count = len(layers) + len(HEADS)
    fitting, steps = what_fits(seconds, step, count) if steps is None else (count, steps)
    if fitting:
        on_message(f"{fitting} trials of {steps} steps, about {fitting * steps * step:.0f} seconds")
    prompts, flat = _prompts(teacher, embeddings)
    return Report(
        teacher=teacher.name,
        images=len(images),
        knowledge=_knowledge(teacher, images, embeddings, stages, 2 * batch),
        trials=_run_trials(task, discriminator, layers, fitting, steps),
        prompts=prompts,
        flat=flat,
        step_cost=(pass_cost, 2 * step),
        needed=count * MIN_STEPS * step,
    )


def what_fits(seconds: float, step: float, candidates: int) -> tuple[int, int]:
    """The number of trials and of steps of each; fewer trials are preferred to fewer than MIN_STEPS steps."""
    trials = min(int(seconds / (MIN_STEPS * step)), candidates)
    return trials, min(int(seconds / (trials * step)), MAX_STEPS) if trials else 0


def _run_trials(task: Trials, discriminator: nn.Module, layers: list[str], count: int, steps: int) -> tuple[Trial, ...]:
    """At most `count`: each layer with a linear head, then the other heads at the best layer."""
    if not count:
        return ()
    trials = [task.run(discriminator, layer, "linear", steps) for layer in layers[:count]]
    best = max(trials, key=lambda trial: trial.held_out)
    return (*trials, *(task.run(discriminator, best.layer, head, steps) for head in HEADS[: count - len(trials)]))


def _prompts(teacher: Teacher, embeddings: Tensor) -> tuple[tuple[str, ...], float | None]:
    """The texts that tell the images apart, and the fraction of the correlations with them that all images share."""
    if teacher.vocabulary == ():
        return (), None
    prompts = tuple(select_prompts_by_embeddings(teacher, embeddings))
    with torch.no_grad():
        rows = correlations(embeddings, teacher.embed_texts(prompts).to(embeddings))
    return prompts, _constant(rows)


def _candidates(discriminator: nn.Module, images: Tensor, inputs: Inputs) -> list[str]:
    """The suggested layer, the last layers of the blocks before it, and the suggested one joined with its neighbour."""
    discriminator = inside(discriminator)
    layers = list_layers(discriminator, *inputs(images))
    end = next((place for place, layer in enumerate(layers) if layer.suggested), len(layers) - 1)
    names = [layer.name for layer in layers[: end + 1]]
    modules = dict(discriminator.named_modules())  # where a layer returns several tensors, its name has a key
    names = [name for name in names if name in modules and student_width(modules[name]) is not None]
    if not names:
        raise KDError("the discriminator has no layer of known width; see kd_plugin.list_layers")
    blocks = {name.rpartition(".")[0] for name in names}
    last: dict[str, str] = {}
    for name in names:  # the last layer of each block; where there are no blocks, every layer
        block = name.rpartition(".")[0] if len(blocks) > 1 else name
        last.pop(block, None)
        last[block] = name
    tried = list(last.values())[-BLOCKS:][::-1]
    return [*tried, f"{tried[1]},{tried[0]}"] if len(tried) > 1 else tried


def _knowledge(teacher: Teacher, images: Tensor, embeddings: Tensor, stages: Sequence[Tensor], batch: int) -> Knowledge:
    away = (embeddings - embeddings.mean(dim=0)).double()
    variances = torch.linalg.svdvals(away.cpu()).square()
    shares = variances / variances.sum().clamp_min(1e-30)
    shares = shares[shares > 0]
    shift = max(images.shape[3] // 16, 1)
    moved = torch.roll(images.flip(3), (shift, shift), dims=(2, 3))
    names = _stages(teacher)
    again, *stages_again = _embed(teacher, moved, batch, names)
    directions = float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 0.0
    of_stages = {name: _reliability(*rows) for name, *rows in zip(names, stages, stages_again, strict=True)}
    return Knowledge(_constant(embeddings), directions, _reliability(embeddings, again), of_stages)


def _reliability(rows: Tensor, again: Tensor) -> float:
    """1 - variance between two views of an image / variance between images, of features [N, K]; 0 if all are equal."""
    rows, again = rows.double(), again.double()
    within = (again - rows).square().sum(dim=1).mean() / 2
    between = (rows - rows.mean(dim=0)).square().sum(dim=1).mean()
    return float(1 - within / between) if between > 0 else 0.0


def _stages(teacher: Teacher) -> tuple[str, ...]:
    """Those that `match_on="stages"` stands for."""
    return spread(teacher.stage_names) if isinstance(teacher, HasStages) else ()


def _constant(rows: Tensor) -> float:
    """The fraction of the energy of [N, K] that all rows have in common."""
    return float(rows.mean(dim=0).square().sum() / rows.square().sum(dim=1).mean())


def _embed(teacher: Teacher, images: Tensor, batch: int, stages: Sequence[str] = ()) -> list[Tensor]:
    """The embeddings [N, E], and of each of the stages the mean over its places [N, C]."""
    parts = []
    with torch.no_grad():
        for part in torch.split(images, batch):
            if stages:
                assert isinstance(teacher, HasStages)
                embeddings, maps = teacher.embed_with_stages(rgb(part), stages)
                parts.append([embeddings, *(stage.float().mean(dim=(2, 3)) for stage in maps)])
            else:
                parts.append([teacher.embed_images(rgb(part))])
    return [torch.cat(rows) for rows in zip(*parts, strict=True)]
