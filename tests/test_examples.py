"""The examples as their readers run them, for some steps, with the demo's teacher on drawings."""

from __future__ import annotations

import ast
import importlib
import io
import json
import math
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from examples import dcgan, lightning_style, resnet_hinge
from training.drawings import DemoSpec, write_demo_set

History = list[dict[str, float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 drawings in a folder for each kind."""
    root = tmp_path_factory.mktemp("examples")
    write_demo_set(root / "drawings.zip", DemoSpec(count=40, series=6))
    with zipfile.ZipFile(root / "drawings.zip") as archive:
        meta = json.loads(archive.read("dataset.json"))
        for name, label in meta["labels"]:
            target = root / "images" / meta["class_names"][label]
            target.mkdir(parents=True, exist_ok=True)
            Image.open(io.BytesIO(archive.read(name))).save(target / Path(name).name)
    return root / "images"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def run(main: Callable[[list[str]], History], folder: Path, *flags: str) -> History:
    history = main([str(folder), "--teacher=demo", "--width=16", "--batch=16", "--device=cpu", *flags])
    assert all(math.isfinite(value) for step in history for value in step.values())
    return history


def falls(history: History, name: str) -> bool:
    values = [step[name] for step in history]
    quarter = len(values) // 4
    return sum(values[-quarter:]) < sum(values[:quarter])


def test_dcgan(folder: Path, tmp_path: Path) -> None:
    history = run(dcgan.main, folder, "--steps=60", f"--out={tmp_path / 'samples.png'}")
    assert falls(history, "agkd")
    assert Image.open(tmp_path / "samples.png").size == (8 * 32, 8 * 32)


def test_resnet_hinge(folder: Path) -> None:
    history = run(resnet_hinge.main, folder, "--steps=24")
    assert {"agkd", "cgkd", "scale", "diversity"} <= history[-1].keys()
    assert falls(history, "agkd")


def test_lightning_style(folder: Path, tmp_path: Path) -> None:
    """The checkpoint holds the distillation too: what a resumed run computes first is what the run would have."""
    torch._dynamo.reset()
    flags = ("--backend=aot_eager", f"--checkpoint={tmp_path / 'state.pt'}")
    history = run(lightning_style.main, folder, "--steps=30", *flags)
    assert falls(history, "agkd")
    state = torch.load(tmp_path / "state.pt", weights_only=True)["gan"]
    assert "kd.head.weight" in state
    assert not any("teacher" in name for name in state)
    torch._dynamo.reset()
    resumed = run(lightning_style.main, folder, "--steps=2", f"--resume={tmp_path / 'state.pt'}", "--backend=aot_eager")
    assert resumed[0]["agkd"] < history[0]["agkd"]


class Unmarked(ast.NodeTransformer):
    """Takes the statements out whose first line is marked `# kd`; of a `with` its body stays."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.count = 0

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if not isinstance(node, ast.stmt) or "# kd" not in self.lines[node.lineno - 1]:
            return node
        self.count += 1
        return node.body if isinstance(node, ast.With) else None


@pytest.mark.parametrize("example", [dcgan, resnet_hinge, lightning_style])
def test_without_the_marked_statements_a_plain_gan_trains(
    example: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(str(example.__file__)).read_text()
    unmarked = Unmarked(text)
    plain = ast.unparse(unmarked.visit(ast.parse(text)))
    assert "kd" not in {name.id for name in ast.walk(ast.parse(plain)) if isinstance(name, ast.Name)}
    assert "kd_plugin" not in plain.partition('"""')[2].partition('"""')[2]
    assert 6 <= unmarked.count <= 13
    (tmp_path / "plain.py").write_text(plain)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("plain", None)
    main = importlib.import_module("plain").main
    flags = ("--backend=eager",) if example is lightning_style else ()
    history = run(main, folder, "--steps=3", *flags)
    assert [set(step) for step in history] == [{"G", "D"}] * 3
    assert history[0] != history[-1]
