"""The plug-in stands alone: it can be put beside any GAN's code, whose packages have the same names as our host's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kd_plugin

ROOT = Path(kd_plugin.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
HOST = {"training", "torch_utils", "dnnlib"}


def violations(source: str) -> list[str]:
    """What the plug-in must not do: import the host, print, or run a backward pass (all three belong to the host)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        else:
            imported = []
        found += [f"line {node.lineno} imports {name}" for name in imported if name.split(".")[0] in HOST]
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"line {node.lineno} prints")
            if isinstance(node.func, ast.Attribute) and node.func.attr == "backward":
                found.append(f"line {node.lineno} runs a backward pass")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_keeps_to_its_layer(path):
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import training",
        "import torch_utils.ops as ops",
        "from dnnlib.util import x",
        "def f():\n    from training import loop",
        "print(1)",
        "loss.backward()",
    ],
)
def test_the_check_can_fail(source):
    assert violations(source)


def test_public_door():
    assert sorted(kd_plugin.__all__) == sorted(set(kd_plugin.__all__))
    for name in kd_plugin.__all__:
        assert hasattr(kd_plugin, name)
    assert {"attach", "Distiller", "KDConfig", "load_teacher", "Teacher", "PromptBank"} <= set(kd_plugin.__all__)
