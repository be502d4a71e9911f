"""The recipes in real code: `python -m pytest -m upstream tests/hosts/test_recipes.py`, with the variables of
tests/hosts/recipes.toml naming checkouts at its commits; a checkout that is not named is skipped.

They need requests, psutil and scipy, and for lightweight-gan einops and adabelief-pytorch. One to five minutes each.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kd_plugin
from kd_plugin.hosts.repairs import mend
from tests.hosts.absent import provide_packages
from tests.hosts.loops import LOOPS
from tests.hosts.recipes import DOCUMENT, RECIPES, Recipe, document
from tests.hosts.shared import hashed, write_images
from tests.hosts.test_launcher import isolated

OFF = {"agkd": 0.0, "cgkd": 0.0, "match": 0.0, "critic": 0.0}


def test_the_page_is_made_of_the_recipes() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m tests.hosts.recipes writes it"


def test_every_recipe_has_its_loop() -> None:
    assert {recipe.variable for recipe in RECIPES} == set(LOOPS)


@dataclass
class Outcome:
    """Of a few steps: a hash of the weights, the latest value of each term, and how far each head has moved."""

    weights: str
    terms: dict[str, float]
    moved: list[float]


@pytest.mark.upstream
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_weight_0_changes_nothing_and_distillation_does(recipe: Recipe, tmp_path: Path) -> None:
    if recipe.variable not in os.environ:
        pytest.skip(f"{recipe.variable} names no checkout")
    plain, zero, full = (outcome(recipe, tmp_path / mode, mode) for mode in ("plain", "zero", "full"))
    assert plain.weights == zero.weights != full.weights
    assert plain.terms == zero.terms == {}
    expected = {"agkd", "cgkd"} if recipe.variable == "KD_TAMING" else {"agkd", "cgkd", "match", "critic"}
    assert {name for name, value in full.terms.items() if value > 0} >= expected, full.terms
    assert min(full.moved) > 0


def outcome(recipe: Recipe, folder: Path, mode: str) -> Outcome:
    shutil.copytree(os.environ[recipe.variable], folder, ignore=shutil.ignore_patterns(".git"))
    if mode != "plain":
        recipe.apply(folder)
    done = isolated(run, recipe.variable, folder, mode)
    assert done.returncode == 0, done.output
    return Outcome(**json.loads((folder / "outcome.json").read_text()))


def run(variable: str, folder: Path, mode: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    provide_packages()
    mend()
    distillers: list[Any] = []
    before: list[list[torch.Tensor]] = []
    attach = kd_plugin.attach

    @functools.wraps(attach)
    def attach_demo(*arguments: Any, **options: Any) -> Any:
        """The recipe's call, with the teacher of drawings in the place of CLIP."""
        options |= {"teacher": "demo", "device": None, **(OFF if mode == "zero" else {})}
        distillers.append(attach(*arguments, **options))
        before.append([p.detach().clone() for p in distillers[-1].parameters()])
        return distillers[-1]

    kd_plugin.attach = attach_demo
    write_images(folder / "images.zip")
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    weights = hashed(LOOPS[variable]())
    terms = {name: float(value) for kd in distillers for name, value in kd.latest.items()}
    moved = [
        max((float((new - old).abs().max()) for new, old in zip(kd.parameters(), start, strict=True)), default=0.0)
        for kd, start in zip(distillers, before, strict=True)
    ]
    Path("outcome.json").write_text(json.dumps({"weights": weights, "terms": terms, "moved": moved}))
