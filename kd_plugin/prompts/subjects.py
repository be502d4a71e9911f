"""Guessing a dataset's subject from its name: '100-shot-grumpy_cat.zip' -> 'grumpy cat'."""

from __future__ import annotations

import re
from pathlib import PurePath

from kd_plugin.errors import PromptError, arg

__all__ = ["subject_of", "with_article"]

# Collections whose name is not what they show.
SHOWN = {
    "ffhq": "human face",
    "celeba": "human face",
    "celebahq": "human face",
    "metfaces": "painted face",
    "afhq": "animal face",
    "afhqcat": "cat",
    "afhqdog": "dog",
    "afhqwild": "wild animal",
}
# Words that say how the data was made, or which collection it was taken from.
NOISE = frozenset(
    (
        *("shot", "shots", "few", "dataset", "datasets", "data", "train", "training", "val", "valid", "validation"),
        *("test", "all", "full", "part", "subset", "split", "image", "images", "img", "imgs", "photo", "photos"),
        *("px", "res", "resolution", "crop", "cropped", "resized", "aligned", "hq"),
        *("animalface", "animalfaces", "lsun", "imagenet", "cifar"),
    )
)
AMOUNT = re.compile(r"\d+(x\d+)?(k|px|p|shots?|imgs?|images?)?")  # 64, 256x256, 5k, 64px, 100shot
GLUED = re.compile(r"(\d+x\d+|v?\d+k?)$")  # the end of ffhq256x256, afhqv2, cifar10
ENDINGS = re.compile(r"\.(zip|tar|gz|tgz|tfrecords?|h5|hdf5|lmdb)$")
SOUNDS_CONSONANT = ("uni", "use", "eu", "one", "ukulele", "ufo")  # "a unicorn"
SILENT_H = ("hour", "honest", "heir")  # "an hourglass"


def subject_of(dataset_name: str) -> str:
    """The words of a file or folder name that are left after removing numbers, sizes and technical words.

    Raises:
        PromptError: nothing is left.
    """
    name = PurePath(dataset_name).name
    while ENDINGS.search(name.lower()):
        name = name[: name.rindex(".")]
    words = []
    for part in re.split(r"[^A-Za-z0-9]+", name):
        words += _words(part)
    if not words:
        raise PromptError(
            f"{arg('prompts')}: the dataset's name '{dataset_name}' does not say what it shows; write a file with one "
            "prompt a line and give it here"
        )
    return " ".join(words)


def _words(part: str) -> list[str]:
    """What one part of a name contributes: 'AnimalFace' nothing, 'ffhq256x256' 'human face', 'GrumpyCat' two words."""
    if not part or AMOUNT.fullmatch(part.lower()):
        return []
    stem = GLUED.sub("", part)
    if stem.lower() in NOISE:
        return []
    if stem.lower() in SHOWN:
        return [SHOWN[stem.lower()]]
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem).lower().split()
    return [word for word in split if word not in NOISE]


def with_article(name: str) -> str:
    """'cat' -> 'a cat', 'apple' -> 'an apple', 'the moon' -> 'the moon'."""
    lower = name.lower()
    if lower.startswith(("a ", "an ", "the ")):
        return name
    vowel = lower.startswith(("a", "e", "i", "o", "u", *SILENT_H)) and not lower.startswith(SOUNDS_CONSONANT)
    return f"{'an' if vowel else 'a'} {name}"
