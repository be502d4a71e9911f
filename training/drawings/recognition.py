"""Zero-shot classification of the attributes of drawings by a teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_plugin.teachers.protocol import Teacher
from training.drawings.captions import LEADS, PLACES, article
from training.drawings.family import COLOURS, COUNTS, KINDS, SCENES, SIZES

__all__ = ["seen_attributes"]


def seen_attributes(teacher: Teacher, embeddings: Tensor) -> dict[str, Tensor]:
    """For each attribute (kind, colour, scene, count, size) the positions [N] of the values that fit best.

    A value's direction is the mean of those of several texts that name it.

    Args:
        teacher: embeds the texts.
        embeddings: [N, E] of images, by the same teacher.
    """
    positions = {}
    for name, values in _texts().items():
        directions = torch.stack([F.normalize(teacher.embed_texts(texts), dim=1).mean(0) for texts in values])
        positions[name] = (embeddings @ F.normalize(directions, dim=1).to(embeddings).T).argmax(1)
    return positions


def _texts() -> dict[str, list[list[str]]]:
    """For each attribute, for each of its values, ways to say it."""

    def in_all_leads(text: str) -> list[str]:
        return [lead + text for lead in LEADS]

    return {
        "kind": [in_all_leads(f"{article(kind)} {kind}") for kind in KINDS],
        "colour": [in_all_leads(f"{article(colour)} {colour} thing") for colour in COLOURS],
        "scene": [[text for place in PLACES[scene] for text in in_all_leads(f"a thing {place}")] for scene in SCENES],
        "count": [in_all_leads(f"{count} {'thing' if count == 'one' else 'things'}") for count in COUNTS],
        "size": [in_all_leads(f"a {size} thing") for size in SIZES],
    }
