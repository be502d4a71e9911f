"""Captions of drawings: all attributes or some of them, in varying words.

Every word is one token of CLIP's tokenizer; no caption has more than 13 tokens with its two marks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from training.drawings.family import Attributes
from training.drawings.scenes import Draw

__all__ = ["LEADS", "PLACES", "PLURALS", "article", "caption", "place_phrases"]

LEADS = ("", "a drawing of ", "a picture of ", "a photo of ", "a painting of ")
PLURALS = {
    "cat": "cats",
    "owl": "owls",
    "fish": "fish",
    "butterfly": "butterflies",
    "house": "houses",
    "boat": "boats",
    "flower": "flowers",
    "mushroom": "mushrooms",
    "thing": "things",
}
PLACES = {
    "meadow": ("in a meadow", "on the grass"),
    "night": ("at night", "under the moon"),
    "sunset": ("at sunset", "in the evening"),
    "sea": ("in the sea", "under water"),
    "snow": ("in the snow", "in winter"),
    "wall": ("on a striped wall", "on a wall"),
}
ALL = tuple(field.name for field in fields(Attributes))


def place_phrases() -> list[str]:
    """Every wording of every scene."""
    return [phrase for phrases in PLACES.values() for phrase in phrases]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def caption(attributes: Attributes, draw: Draw, named: Collection[str] = ALL) -> str:
    """'a painting of two red owls at night'.

    Args:
        attributes: of the drawing.
        draw: chooses the opening and the wording of the scene.
        named: which attributes it names; without `kind` the noun is "thing", without `count` there is an article.
    """
    noun = attributes.kind if "kind" in named else "thing"
    size = [attributes.size] if "size" in named and attributes.size else []
    colour = [attributes.colour] if "colour" in named else []
    count = attributes.count if "count" in named else None
    if count in ("two", "three"):
        words = [count, *size, *colour, PLURALS[noun]]
    elif count == "one":
        words = [count, *size, *colour, noun]
    else:
        words = [*size, *colour, noun]
        words.insert(0, article(words[0]))
    text = LEADS[int(draw() * len(LEADS))] + " ".join(words)
    if "scene" in named:
        phrases = PLACES[attributes.scene]
        text += " " + phrases[int(draw() * len(phrases))]
    return text
