"""Where prompts come from.

In this order: a file written by the user; `auto`, or a teacher that knows only certain texts: those that best
distinguish the images; the dataset's class names; the dataset's own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kd_plugin.errors import PromptError, arg
from kd_plugin.file_kinds import what_it_is
from kd_plugin.prompts.selection import known_texts, select_prompts
from kd_plugin.prompts.subjects import subject_of, with_article
from kd_plugin.teachers.protocol import Teacher

__all__ = [
    "AUTO",
    "PROMPT_IMAGES",
    "TEMPLATES",
    "ChosenPrompts",
    "choose_prompts",
    "place_of",
    "prompts_for_classes",
    "prompts_for_subject",
    "read_prompts",
    "reader_of",
]

PROMPT_IMAGES = 1000  # are enough to select prompts by
AUTO = "auto"  # in place of a file's name

# Without an article, so that a name ("obama") and a thing ("golden retriever") both fit. They vary what a
# low-shot set varies in: distance, pose, light, expression, medium.
TEMPLATES = (
    "a photo of {}",
    "a close-up photo of {}",
    "a portrait of {}",
    "a photo of {} from the side",
    "a photo of {} looking up",
    "a photo of {} outdoors",
    "a photo of {} indoors",
    "a bright photo of {}",
    "a dark photo of {}",
    "a blurry photo of {}",
    "a black and white photo of {}",
    "a photo of {}, smiling",
    "a photo of {}, looking serious",
    "a painting of {}",
    "a sketch of {}",
    "a cartoon of {}",
)


@dataclass(frozen=True)
class ChosenPrompts:
    """The texts, and a phrase for the log that states their source."""

    texts: tuple[str, ...]
    source: str


def read_prompts(path: str | Path) -> list[str]:
    """One prompt per line, UTF-8; blank lines and lines that begin with # are skipped, duplicates dropped.

    Raises:
        PromptError: no such file, no UTF-8 text, or no prompt in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # drops a leading byte-order mark
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{arg('prompts', str(path))} is not UTF-8 text ({error.reason} at byte {error.start})"
            f"{what_it_is(Path(path))}"
        ) from None
    except OSError as error:
        raise PromptError(
            f"{arg('prompts', str(path))} cannot be read ({error.strerror}){what_it_is(Path(path))}"
        ) from None
    if "\0" in text or text.lstrip().startswith(("{", "<", "version https://git-lfs")):
        raise PromptError(f"{arg('prompts', str(path))} holds no prompts, one per line{what_it_is(Path(path))}")
    lines = (line.strip() for line in text.splitlines())
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise PromptError(f"{arg('prompts', str(path))} contains no prompt; write one per line")
    return prompts


def place_of(text: str | None, path: str | Path | None) -> str:
    """ " (line 2 of 'prompts.txt')", or "" if the text is in no line of such a file; the end of an error message."""
    if text is None or path in (None, AUTO):
        return ""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    return f" (line {lines.index(text) + 1} of '{path}')" if text in lines else ""


def prompts_for_subject(subject: str) -> list[str]:
    """Sixteen ways to show one subject: 'a photo of obama', 'a sketch of obama', ..."""
    return [template.format(subject) for template in TEMPLATES]


def prompts_for_classes(class_names: Sequence[str], template: str = TEMPLATES[0]) -> list[str]:
    """'a photo of a cat' for each class; the sixteen templates for a single class, as one prompt teaches nothing."""
    names = list(dict.fromkeys(name.replace("_", " ").strip() for name in class_names))
    if len(names) == 1:
        return prompts_for_subject(names[0])
    return [template.format(with_article(name)) for name in names]


def reader_of(teachers: Sequence[Teacher]) -> Teacher:
    """The first of several teachers that has a text encoder; the first of all if none has."""
    return next((teacher for teacher in teachers if teacher.vocabulary != ()), teachers[0])


def choose_prompts(
    teacher: Teacher,
    *,
    file: str | Path | None,
    class_names: Sequence[str] | None,
    dataset_name: str,
    images: Iterable[Tensor],
    template: str = TEMPLATES[0],
) -> ChosenPrompts:
    """The prompts for a run: the user's file or the teacher's selection, else class names, else the dataset's name.

    Args:
        teacher: the one that will embed them.
        file: the user's file of prompts, or `auto`.
        class_names: of a labelled dataset.
        dataset_name: file or folder name of the dataset.
        images: batches as for `select_prompts`; only read for `auto` and for a teacher with a vocabulary.
        template: of class names; {} stands for the name with its article.

    Raises:
        PromptError: an unreadable file, or a dataset's name without a subject.
    """
    if file is not None and file != AUTO:
        texts = read_prompts(file)
        return ChosenPrompts(tuple(texts), f"{len(texts)} prompts from '{file}'")
    if file == AUTO or teacher.vocabulary is not None:
        known = known_texts(teacher)
        texts = select_prompts(teacher, images, texts=known)
        whose = "the plug-in's" if teacher.vocabulary is None else "the teacher's"
        return ChosenPrompts(tuple(texts), f"the {len(texts)} of {whose} {len(known)} texts that tell the images apart")
    if class_names:
        texts = prompts_for_classes(class_names, template)
        return ChosenPrompts(tuple(texts), f"{len(texts)} prompts from the dataset's class names")
    subject = subject_of(dataset_name)
    texts = prompts_for_subject(subject)
    return ChosenPrompts(tuple(texts), f"{len(texts)} templates over '{subject}', read from the dataset's name")
