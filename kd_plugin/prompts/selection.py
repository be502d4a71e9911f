"""Prompt selection: the texts that best distinguish the images of a dataset, according to the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

import torch
from torch import Tensor

from kd_plugin.errors import PromptError, arg
from kd_plugin.functional import row_normalized
from kd_plugin.teachers.image_input import rgb
from kd_plugin.teachers.protocol import KnowsItsWords, Teacher

__all__ = ["known_texts", "select_prompts", "select_prompts_by_embeddings", "shipped_vocabulary"]

SPENT = 1e-3  # of the first text's spread: what is left of a text whose spread others already explain


def shipped_vocabulary() -> tuple[str, ...]:
    """Nouns, attributes, moods, poses, light and places, styles: 414 texts."""
    text = resources.files("kd_plugin.prompts").joinpath("vocabulary.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def known_texts(teacher: Teacher) -> tuple[str, ...]:
    """The texts to choose from: the teacher's own if it knows only these, else the shipped ones that it can read.

    Raises:
        PromptError: it has no text encoder.
    """
    if teacher.vocabulary == ():
        raise PromptError(
            f"teacher '{teacher.name}' has no text encoder: set {arg('cgkd', 0)} and {arg('diversity', 0)}"
        )
    if teacher.vocabulary is not None:
        return teacher.vocabulary
    texts = shipped_vocabulary()
    if not isinstance(teacher, KnowsItsWords):
        return texts
    strange = set(teacher.unknown_words(texts))
    return tuple(text for text in texts if not strange & set(text.split()))


@torch.no_grad()
def select_prompts(
    teacher: Teacher, images: Iterable[Tensor], count: int = 32, among: int = 200, texts: Sequence[str] | None = None
) -> list[str]:
    """The texts that distinguish these images, each adding what the earlier ones do not cover; the best first.

    Of the `among` texts with the highest mean cosine to the images (others are far-fetched), one after the other that
    whose cosine varies most over the images in ways not yet explained by those taken: a pivoted Gram-Schmidt
    orthogonalisation of the centred cosines. The nearest texts alone would say nearly the same of every image, and the
    most varying ones alone would be synonyms. Ends early where nothing is left to explain: N images differ in N - 1
    ways.

    Args:
        teacher: one with a text encoder.
        images: batches [N, C, H, W] in [-1, 1] (C = 3, or 1 for grey), on the teacher's device.
        count, among: at most all texts.
        texts: to choose from; by default `known_texts(teacher)`.

    Raises:
        PromptError: a teacher without a text encoder, fewer than two texts, or no image.
    """
    texts = _enough(teacher, texts)
    batches = [teacher.embed_images(rgb(batch)) for batch in images]
    if not batches or not sum(len(batch) for batch in batches):
        raise PromptError("prompts are selected by the images, but no image was given")
    return select_prompts_by_embeddings(teacher, torch.cat(batches), count, among, texts)


def select_prompts_by_embeddings(
    teacher: Teacher, embeddings: Tensor, count: int = 32, among: int = 200, texts: Sequence[str] | None = None
) -> list[str]:
    """As `select_prompts`, from the teacher's embeddings [N, E] of the images, N at least 1."""
    texts = _enough(teacher, texts)
    with torch.no_grad():
        embedded = row_normalized(teacher.embed_texts(texts))  # [V, E]
        cosines = row_normalized(embeddings.to(embedded)) @ embedded.T  # [N, V]
    near = cosines.mean(dim=0).topk(min(among, len(texts))).indices  # [among]
    chosen = _pivots(cosines[:, near].double(), count)
    return [texts[int(near[place])] for place in chosen]


def _enough(teacher: Teacher, texts: Sequence[str] | None) -> Sequence[str]:
    """`texts`, by default those that the teacher knows."""
    texts = known_texts(teacher) if texts is None else texts
    if len(texts) < 2:
        raise PromptError(
            f"{arg('prompts', 'auto')}: teacher '{teacher.name}' knows {len(texts)} of the texts to choose from; give "
            "your own prompts"
        )
    return texts


def _pivots(columns: Tensor, count: int) -> list[int]:
    """The columns of [N, A] that vary most, each after removing what earlier ones explain; at least 2."""
    left = columns - columns.mean(dim=0)
    chosen: list[int] = []
    while len(chosen) < min(count, left.shape[1]):
        spread = left.square().sum(dim=0)
        spread[chosen] = -1.0
        best = int(spread.argmax())
        if not chosen:
            first = float(spread[best])
        if len(chosen) >= 2 and float(spread[best]) <= SPENT * first:
            break
        chosen.append(best)
        length = left[:, best].norm()
        if length > 0:
            axis = left[:, best] / length
            left = left - torch.outer(axis, axis @ left)
    return chosen
