"""The recipes: applying them to a checkout, and docs/recipes.md (`python -m tests.hosts.recipes` writes it)."""

from __future__ import annotations

import re
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCUMENT", "RECIPES", "Recipe", "document"]

DATA = Path(__file__).with_name("recipes.toml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"

INTRODUCTION = """# Recipes

The lines that put the plug-in into other people's training code. Line numbers are those of the original files at the
named commits. For stylegan2-ada-pytorch, DiffAugment-stylegan2-pytorch, stylegan3 and projected-gan no line is
needed: [hosts.md](hosts.md).

{table}
**What was run.** The training function of each checkout, three steps on a CPU with batches of 4: once as it is, once
with these lines and all weights 0 (afterwards the weights of D and G are equal bit for bit), once with distillation
(every term has a value, and the heads have moved). `python -m pytest -m upstream tests/hosts/test_recipes.py` repeats
it. The teacher was that of the drawings, not CLIP; the images were random; networks were narrow (BigGAN, R3GAN) and
resolutions low; the perceptual losses of FastGAN and taming-transformers were replaced or off, and so was
rosinality's augmentation, which fails on torch 2.13 by itself. **Not run: a GPU, several GPUs, half precision, a
training to the end.**

**Yours to choose** are teacher and prompts; without prompts, what needs texts is off.

**Continuing a run.** The heads belong to the checkpoint: save `kd.state_dict()` with it and load it after `attach`
(in taming-transformers this happens by itself). Their parameters are a second group of D's optimiser: to start from a
checkpoint that was written without them, restore the optimiser before `add_param_group`; otherwise after it.

<!-- Made by python -m tests.hosts.recipes from tests/hosts/recipes.toml. -->

"""


@dataclass(frozen=True)
class Edit:
    """
    file:  in the checkout.
    first, last: lines of the original; those that are indented, or first > last: nothing is, the lines go between.
    where: in words.
    text:  the lines that are added, or the `with` under which the others are put.
    """

    file: str
    first: int
    last: int
    where: str
    text: str

    @property
    def adds(self) -> bool:
        return self.first > self.last


@dataclass(frozen=True)
class Recipe:
    """See recipes.toml."""

    name: str
    repo: str
    commit: str
    variable: str
    about: str
    edits: tuple[Edit, ...]

    def apply(self, checkout: Path) -> None:
        """To the files of the checkout, which must be the original ones."""
        for file in dict.fromkeys(edit.file for edit in self.edits):
            path = checkout / file
            lines = path.read_text(encoding="utf-8").split("\n")
            for edit in sorted((e for e in self.edits if e.file == file), key=lambda e: e.first, reverse=True):
                lines[edit.first - 1 : edit.last] = _edited(edit, lines[edit.first - 1 : edit.last])
            path.write_text("\n".join(lines), encoding="utf-8")

    @property
    def added(self) -> int:
        """Lines to write."""
        return sum(len(edit.text.split("\n")) for edit in self.edits)

    def document(self) -> str:
        title = f"[{self.repo}](https://github.com/{self.repo}) at {self.commit}, {self.added} lines. "
        about = textwrap.fill(title + self.about, 118, break_long_words=False, break_on_hyphens=False)
        return f"## {self.name}\n\n{about}\n\n" + "\n".join(_documented(edit) for edit in self.edits)


def _edited(edit: Edit, lines: list[str]) -> list[str]:
    if edit.adds:
        return edit.text.split("\n")
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return [indent + edit.text, *("    " + line for line in lines)]


def _documented(edit: Edit) -> str:
    if edit.adds:
        return f"{edit.file}, after line {edit.last} ({edit.where}):\n\n```python\n{edit.text}\n```\n"
    lines = f"line {edit.first}" if edit.first == edit.last else f"lines {edit.first} to {edit.last}"
    return f"{edit.file}, {lines} ({edit.where}), indented under:\n\n```python\n{edit.text}\n```\n"


def _anchor(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _read() -> tuple[Recipe, ...]:
    recipes = []
    for entry in tomllib.loads(DATA.read_text(encoding="utf-8"))["recipe"]:
        edits = []
        for given in entry.pop("edit"):
            first, last = given["lines"] if "lines" in given else (given["after"] + 1, given["after"])
            text = given["under"] if "under" in given else given["add"].removeprefix("\n")
            edits.append(Edit(given["file"], first, last, given["where"], text))
        recipes.append(Recipe(**entry, edits=tuple(edits)))
    return tuple(recipes)


RECIPES = _read()


def document() -> str:
    table = "| Code | Commit | Lines to write |\n|---|---|---|\n"
    table += "".join(f"| [{r.name}](#{_anchor(r.name)}) | {r.commit} | {r.added} |\n" for r in RECIPES)
    return "\n".join([INTRODUCTION.format(table=table), *(recipe.document() for recipe in RECIPES)])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
