"""Train the teacher behind `--kd=demo`: OpenAI's CLIP architecture, very small, on captioned drawings.

    python -m experiments.train_demo_teacher

draws 40,000 pictures of series that neither the demo set nor the tests use, trains for about 10 minutes on one CPU
core, prints the zero-shot accuracy on held-out drawings and writes kd_plugin/teachers/demo_clip.npz.

The loss is CLIP's symmetric cross-entropy over image-text similarities, with many positives: a caption may leave
attributes out, so every picture that has the attributes it names belongs to it, and the target is spread evenly over
all that belong (UniCL, Yang et al. 2022, eq. 3). Plain InfoNCE learns the kinds far more slowly.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnlib.files import write_atomic
from kd_plugin.teachers import clip_package, demo
from kd_plugin.teachers.preprocess import Preprocess, resize_and_crop
from kd_plugin.teachers.protocol import Teacher
from training.data.pixels import to_float as to_images
from training.drawings import COLOURS, COUNTS, KINDS, SCENES, SIZES, Attributes, caption, draw
from training.drawings.captions import LEADS, PLURALS, place_phrases
from training.drawings.recognition import seen_attributes

# Series of drawings. The demo set is series 0; people's held-out sets have small numbers.
TRAINING_SERIES = 10_000
HELD_OUT_SERIES = 20_000

SIDE = 32  # pixels of the teacher's input
WIDTH = 64  # the least that the architecture allows: it takes width // 64 attention heads
CONTEXT = 16  # tokens; the longest caption has 13
NORM = 10.0  # of the embeddings; about that of ViT-B/32's, which the weights of the losses were chosen for
BATCH = 128

NAMES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": COLOURS,
    "scene": SCENES,
    "count": COUNTS,
    "size": SIZES,
}
# Which attribute a caption of one attribute names: the two with eight values twice as often.
_SINGLES = ("kind", "kind", "colour", "colour", "scene", "count", "size")


@dataclass(frozen=True)
class Pool:
    """Pictures uint8 [N, 3, SIDE, SIDE] and their attributes [N, 5] as positions in NAMES; -1 where there is none."""

    pixels: Tensor
    attributes: Tensor


def rows_of(attributes: Attributes) -> list[int]:
    return [
        -1 if value is None else names.index(value)
        for names, value in zip(NAMES.values(), astuple(attributes), strict=True)
    ]


def attributes_of(row: list[int]) -> Attributes:
    return Attributes(*(names[k] if k >= 0 else None for names, k in zip(NAMES.values(), row, strict=True)))  # type: ignore[arg-type]


def make_pool(count: int, series: int, size: int = SIDE) -> Pool:
    """`count` drawings of a series; those of another size are resized as the teacher's preprocessing does it."""
    drawings = [draw(number, series, size) for number in range(count)]
    pixels = torch.from_numpy(np.stack([drawing.pixels for drawing in drawings]))
    if size != SIDE:
        parts = [resize_and_crop(part.float() / 255, SIDE) for part in pixels.split(500)]
        pixels = torch.cat([(part * 255).round().byte() for part in parts])
    return Pool(pixels, torch.tensor([rows_of(drawing.attributes) for drawing in drawings]))


class Vocabulary:
    """The few tokens that captions use, numbered in the order of their ids: the end mark must stay the highest."""

    def __init__(self) -> None:
        words = {*KINDS, *PLURALS.values(), *COLOURS, *COUNTS, *SIZES, "thing", "a", "an"}
        words |= {word for text in (*LEADS, *place_phrases()) for word in text.split()}
        tokenize = clip_package.openai_tokenizer()
        self.ids = sorted({0}.union(*(tokenize(word) for word in words)))
        self._tokenize = tokenize
        self._row = {token: row for row, token in enumerate(self.ids)}

    def encode(self, texts: list[str]) -> Tensor:
        """[M, CONTEXT] rows of the small table, zero-padded after the end mark."""
        encoded = [[self._row[token] for token in self._tokenize(text)] for text in texts]
        return torch.tensor([row + [0] * (CONTEXT - len(row)) for row in encoded])


def new_model(vocabulary: Vocabulary, seed: int) -> nn.Module:
    """The untrained network: 168,000 weights for images and 59,000 for texts."""
    torch.manual_seed(seed)
    model: nn.Module = clip_package._load("model").CLIP(
        embed_dim=WIDTH,
        image_resolution=SIDE,
        vision_layers=3,
        vision_width=WIDTH,
        vision_patch_size=8,
        context_length=CONTEXT,
        vocab_size=len(vocabulary.ids),
        transformer_width=WIDTH,
        transformer_heads=WIDTH // 64,
        transformer_layers=1,
    )
    model.logit_scale.data.fill_(math.log(10))
    return model


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases, norms and the scale are not decayed
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98))


def jitter(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrored or not, a little more or less contrast and brightness."""
    flipped, contrast, brightness = torch.rand([3, len(images), 1, 1, 1], generator=rng)
    images = torch.where(flipped < 0.5, images.flip(3), images)
    return images * (1 + 0.1 * (contrast - 0.5)) + 0.1 * (brightness - 0.5)


def choose_named(attributes: Attributes, rng: random.Random) -> set[str]:
    """Which attributes a caption names: all of them (30 %), one (35 %), or any subset (35 %)."""
    if rng.random() < 0.3:
        named = set(NAMES)
    elif rng.random() < 0.5:
        named = {_SINGLES[int(rng.random() * len(_SINGLES))]}
    else:
        named = {name for name in NAMES if rng.random() < 0.5}
    said = {name for name in named if getattr(attributes, name) is not None}
    return said or {"kind"}


def matches_of(attributes: Tensor, named: list[set[str]]) -> Tensor:
    """[N, N]: whether picture i has every attribute that caption j names of picture j."""
    matters = torch.tensor([[name in names for name in NAMES] for names in named])  # [N, 5]
    same = attributes[:, None, :] == attributes[None, :, :]  # [N, N, 5]
    return (same | ~matters).all(dim=2)


def similarity_loss(images: Tensor, texts: Tensor, matches: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's loss for normalised [N, E] and [M, E], where matches [N, M] says which pairs belong together."""
    logits = log_scale.exp() * images @ texts.T  # [N, M]
    target = matches.float()
    to_text = -(logits.log_softmax(1) * target / target.sum(1, keepdim=True)).sum(1).mean()
    to_image = -(logits.log_softmax(0) * target / target.sum(0, keepdim=True)).sum(0).mean()
    return (to_text + to_image) / 2


def norm_penalty(embeddings: Tensor) -> Tensor:
    """Brings the embeddings' norms to NORM."""
    return (embeddings.norm(dim=1) / NORM - 1).square().mean()


def train(pool: Pool, vocabulary: Vocabulary, steps: int, seed: int, report: Callable[[int, float], None]) -> nn.Module:
    """The trained network; `report` is told (step, loss) after each step."""
    model = new_model(vocabulary, seed)
    optimizer = new_optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    preprocess = Preprocess(SIDE)
    rng, torch_rng = random.Random(seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(pool.pixels), [BATCH], generator=torch_rng)
        rows = pool.attributes[chosen]
        attributes = [attributes_of(row) for row in rows.tolist()]
        named = [choose_named(shown, rng) for shown in attributes]
        texts = [caption(shown, rng.random, names) for shown, names in zip(attributes, named, strict=True)]

        image = model.encode_image(preprocess(jitter(to_images(pool.pixels[chosen]), torch_rng)))  # [N, E]
        text = model.encode_text(vocabulary.encode(texts))  # [N, E]
        loss = similarity_loss(
            F.normalize(image, dim=1), F.normalize(text, dim=1), matches_of(rows, named), model.logit_scale
        )
        loss = loss + 0.1 * (norm_penalty(image) + norm_penalty(text))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # as CLIP does
        report(step + 1, loss.item())
    return model


def save(model: nn.Module, vocabulary: Vocabulary, path: Path) -> None:
    """Writes what demo.load reads: float16 weights, and of the token table only the rows that captions use."""
    arrays = {name: tensor.detach().half().numpy() for name, tensor in model.state_dict().items()}
    arrays[demo.TOKEN_IDS] = np.array(vocabulary.ids, np.int32)

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    write_atomic(path, write)


@torch.no_grad()
def zero_shot(teacher: Teacher, images: Tensor, attributes: Tensor) -> dict[str, float]:
    """By attribute, the share of images whose nearest value (the mean direction of its texts) is the right one.

    Args:
        images: [N, 3, H, W] in [-1, 1].
        attributes: [N, 5] as in Pool; an attribute that an image does not have (-1) does not count.
    """
    embedded = torch.cat([teacher.embed_images(part) for part in images.split(100)])  # [N, E]
    accuracy = {}
    for column, (name, best) in enumerate(seen_attributes(teacher, embedded).items()):
        right = attributes[:, column]
        accuracy[name] = (best == right)[right >= 0].float().mean().item()
    return accuracy


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=demo.WEIGHTS, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=7500, show_default=True, help=f"Batches of {BATCH} drawings")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(out: Path, steps: int, seed: int) -> None:
    """Train the demo teacher on the CPU and write its weights."""
    torch.set_num_threads(1)  # so small a network gains nothing from more
    start = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 250 == 0 or step == steps:
            click.echo(f"step {step:5d}  loss {loss:.3f}  {time.monotonic() - start:.0f} s")

    # A quarter drawn larger and resized: without it, the kinds of larger pictures are told less well.
    parts = make_pool(30_000, TRAINING_SERIES), make_pool(10_000, TRAINING_SERIES + 1, size=2 * SIDE)
    pool = Pool(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "attributes")))
    click.echo(f"{len(pool.pixels)} drawings  {time.monotonic() - start:.0f} s")
    vocabulary = Vocabulary()
    save(train(pool, vocabulary, steps, seed, report).eval(), vocabulary, out)
    click.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB, {len(vocabulary.ids)} tokens")
    teacher = demo.load(path=out)
    for size in (SIDE, 2 * SIDE):
        held_out = make_pool(2000, HELD_OUT_SERIES, size=size)
        accuracy = zero_shot(teacher, to_images(held_out.pixels), held_out.attributes)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
        click.echo(f"zero-shot accuracy on 2000 held-out drawings of {size} pixels: {figures}")


if __name__ == "__main__":
    main()
