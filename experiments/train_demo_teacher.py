"""Train the teacher behind `--kd=demo`: OpenAI's CLIP architecture, very small, on captioned drawings.

    python -m experiments.train_demo_teacher

draws every batch afresh from training.demo_drawings (a series that neither the demo set nor the tests use), trains
for about 6 minutes on one CPU core, prints the zero-shot accuracy on held-out drawings and writes
kd_plugin/teachers/demo_clip.npz.

The loss is CLIP's, symmetric cross-entropy over image-text similarities, with one change: several pictures of a batch
share a caption, so the target is spread evenly over all that match (UniCL, Yang et al. 2022, eq. 3). It is taken at
three levels, "a red fish", "a fish" and "something red", so that prompts may name either attribute or both.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_plugin import prompts
from kd_plugin.teachers import clip_package, demo
from kd_plugin.teachers.base import Teacher
from kd_plugin.teachers.preprocess import Preprocess
from training.demo_drawings import COLOURS, SUBJECTS, Drawing, draw

# Series of drawings. The demo set is series 0.
HELD_OUT_SERIES = 1
TRAINING_SERIES = 1000

BATCH = 2 * len(COLOURS) * len(SUBJECTS)  # every pair twice: each caption has a positive and 70 negatives
WIDTH = 64  # the least that the architecture allows: it takes width // 64 attention heads
CONTEXT = 16  # tokens; the longest caption has 11
IMAGE_NORM = 10.0  # about that of ViT-B/32's image embeddings, which the weights of the losses were chosen for

LEVELS: dict[str, list[str]] = {
    "pair": [f"{colour} {subject}" for colour in COLOURS for subject in SUBJECTS],
    "subject": list(SUBJECTS),
    "colour": list(COLOURS),
}
_FRAMES = (*prompts.TEMPLATES, "a drawing of {}", "{}")
_OF_A_THING = [frame.format(phrase) for frame in _FRAMES for phrase in ("a {}", "{}")]
_OF_A_COLOUR = [frame.format(phrase) for frame in _FRAMES for phrase in ("something {}", "{}")]
TEMPLATES = {"pair": _OF_A_THING, "subject": _OF_A_THING, "colour": _OF_A_COLOUR}


def meaning(drawing: Drawing, level: str) -> str:
    """The entry of LEVELS[level] that describes the drawing."""
    return {
        "pair": f"{drawing.colour} {drawing.subject}",
        "subject": drawing.subject,
        "colour": drawing.colour,
    }[level]


def images_of(drawings: list[Drawing]) -> Tensor:
    """[N, 3, H, W] float32 in [-1, 1]."""
    pixels = np.stack([np.asarray(drawing.image) for drawing in drawings])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def tokens_of(texts: list[str]) -> Tensor:
    """[M, CONTEXT] token ids, zero-padded after the end mark. The text tower is causal: padding has no effect."""
    tokenize = clip_package.openai_tokenizer()
    return torch.tensor([(ids := tokenize(text)) + [0] * (CONTEXT - len(ids)) for text in texts])


def spoil(images: Tensor, rng: torch.Generator) -> Tensor:
    """What a GAN's teacher is shown: DiffAugment's changes at about half strength, and a weak generator's noise.

    Half strength, because a colour or a subject that is gone cannot be named.
    """
    n, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=rng)

    images = images + uniform(-0.25, 0.25)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.5, 1.5)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * uniform(0.75, 1.25)
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    dy, dx = (uniform(-size / 8, size / 8).round().long() for size in (height, width))
    y, x = rows + dy, columns + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    flat = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).expand(n, 3, height, width)
    images = images.flatten(2).gather(2, flat.flatten(2)).view_as(images) * inside
    top, left = uniform(-0.1, 1) * height, uniform(-0.1, 1) * width
    hole = (rows >= top) & (rows < top + height * 3 // 8) & (columns >= left) & (columns < left + width * 3 // 8)
    images = images.masked_fill(hole, 0)
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, blurred, uniform(0, 1))
    return images + torch.randn(images.shape, generator=rng) * uniform(0, 0.15)


def similarity_loss(images: Tensor, texts: Tensor, matches: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's loss for normalised [N, E] and [M, E], where matches [N, M] says which pairs belong together."""
    logits = log_scale.exp() * images @ texts.T  # [N, M]
    target = matches.float()
    to_text = -(logits.log_softmax(1) * target / target.sum(1, keepdim=True)).sum(1).mean()
    to_image = -(logits.log_softmax(0) * target / target.sum(0, keepdim=True)).sum(0).mean()
    return (to_text + to_image) / 2


def some_captions(level: str, rng: np.random.Generator) -> list[str]:
    """One caption for each name of a level, each in a template of its own."""
    templates = TEMPLATES[level]
    return [templates[rng.integers(len(templates))].format(name) for name in LEVELS[level]]


def all_captions() -> list[str]:
    return [template.format(name) for level, names in LEVELS.items() for template in TEMPLATES[level] for name in names]


def new_model(seed: int) -> nn.Module:
    """The untrained network: about 270,000 weights besides the token table."""
    torch.manual_seed(seed)
    model: nn.Module = clip_package._load("model").CLIP(
        embed_dim=WIDTH,
        image_resolution=32,
        vision_layers=3,
        vision_width=WIDTH,
        vision_patch_size=4,
        context_length=CONTEXT,
        vocab_size=demo.TABLES["token_embedding.weight"],
        transformer_width=WIDTH,
        transformer_heads=WIDTH // 64,
        transformer_layers=2,
    )
    return model


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases, norms and the scale are not decayed
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6)


def train(steps: int, seed: int, report: Callable[[int, float], None]) -> nn.Module:
    """The trained network; `report` is told (step, loss) after each step."""
    model = new_model(seed)
    optimizer = new_optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    preprocess = Preprocess(32)
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        drawings = [draw(step * BATCH + k, TRAINING_SERIES + seed) for k in range(BATCH)]
        images = images_of(drawings)
        if step % 3:
            images = spoil(images, torch_rng)
        embedded = F.normalize(model.encode_image(preprocess(images)), dim=1)  # [N, E]
        loss = embedded.new_zeros(())
        for level, names in LEVELS.items():
            texts = F.normalize(model.encode_text(tokens_of(some_captions(level, rng))), dim=1)  # [M, E]
            matches = torch.tensor([[meaning(drawing, level) == name for name in names] for drawing in drawings])
            loss = loss + similarity_loss(embedded, texts, matches, model.logit_scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))  # as CLIP does
        report(step + 1, loss.item())
    return model


@torch.no_grad()
def save(model: nn.Module, path: Path) -> None:
    """Write what demo.load reads: float16 weights, and of the tables only the rows that captions use."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    images = images_of([draw(index, TRAINING_SERIES) for index in range(5 * BATCH)])
    weights["visual.proj"] *= IMAGE_NORM / model.encode_image(Preprocess(32)(images)).norm(dim=1).mean()
    used = {
        "token_embedding.weight": tokens_of(all_captions()).unique(),
        "positional_embedding": torch.arange(CONTEXT),
    }
    for name, rows in used.items():
        weights[name] = weights[name][rows]
    arrays = {name: tensor.half().numpy() for name, tensor in weights.items()}
    arrays |= {f"{name}.rows": rows.to(torch.int32).numpy() for name, rows in used.items()}
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@torch.no_grad()
def zero_shot(teacher: Teacher, level: str, templates: list[str], count: int = 360) -> dict[str, float]:
    """Accuracy on `count` held-out drawings, by template.

    It is the share of drawings whose most similar prompt, of all names of the level in the template, is the right one.
    """
    names = LEVELS[level]
    drawings = [draw(index, HELD_OUT_SERIES) for index in range(count)]
    images = teacher.embed_images(images_of(drawings))  # [N, E]
    right = torch.tensor([names.index(meaning(drawing, level)) for drawing in drawings])
    accuracy = {}
    for template in templates:
        texts = F.normalize(teacher.embed_texts([template.format(name) for name in names]), dim=1)  # [M, E]
        best = (images @ texts.T).argmax(1)  # [N]
        accuracy[template] = (best == right).float().mean().item()
    return accuracy


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=demo.WEIGHTS, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=1500, show_default=True, help=f"Batches of {BATCH} drawings")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(out: Path, steps: int, seed: int) -> None:
    """Train the demo teacher on the CPU and write its weights."""
    start = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            click.echo(f"step {step:5d}  loss {loss:.3f}  {time.monotonic() - start:.0f} s")

    save(train(steps, seed, report), out)
    click.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
    teacher = demo.load(path=out)
    for level, templates in TEMPLATES.items():
        accuracy = zero_shot(teacher, level, templates)
        worst = min(accuracy, key=lambda template: accuracy[template])
        mean = sum(accuracy.values()) / len(accuracy)
        click.echo(
            f"zero-shot accuracy on held-out drawings, {level} ({len(LEVELS[level])} names): mean of "
            f"{len(templates)} templates {mean:.3f}, worst {accuracy[worst]:.3f} ('{worst}')"
        )


if __name__ == "__main__":
    main()
