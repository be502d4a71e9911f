"""`--kd=MODULE:ATTRIBUTE`: the user's own code, and several teachers in one spec."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kd_plugin.errors import TeacherError
from kd_plugin.teachers import load_teacher, load_teachers, split_spec

CODE = """
import torch
class Mine:
    name, embed_dim, fingerprint, vocabulary = "mine", 4, "f" * 64, ()
    def __init__(self, device): self.device = device
    def embed_images(self, images): return images.mean(dim=(2, 3)).repeat(1, 2)[:, :4]
    def embed_texts(self, texts): raise NotImplementedError
ready = Mine("cpu")
number = 3
def broken(device): raise RuntimeError("no weights here")
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_teachers_kd.py").write_text(CODE)
    (tmp_path / "my_broken_kd.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)


def test_a_factory_and_an_object() -> None:
    made = load_teacher("my_teachers_kd:Mine", "cpu")
    assert made.device == torch.device("cpu")  # type: ignore[attr-defined]
    assert load_teacher("my_teachers_kd:ready").name == "mine"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_teachers_kd:reddy", "'my_teachers_kd' has no 'reddy'; nearest: 'ready'"),
        ("my_teachers_kd:number", "is a int; give a teacher (see kd_plugin.Teacher), or a function"),
        ("my_teachers_kd:broken", "calling it with the device failed (no weights here)"),
        ("my_broken_kd:x", "importing 'my_broken_kd' failed (No module named 'nothing_of_that_name')"),
        ("no_such_module_kd:x", "unknown teacher 'no_such_module_kd'"),
    ],
)
def test_what_goes_wrong(spec: str, message: str) -> None:
    with pytest.raises(TeacherError) as error:
        load_teacher(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("clip", [(1, "clip")]),
        ("clip+hf:facebook/dinov2-small", [(1, "clip"), (1, "hf:facebook/dinov2-small")]),
        ("2*clip:ViT-L/14+.5*demo", [(2, "clip:ViT-L/14"), (0.5, "demo")]),
        ("script:a.pt+b.npz", [(1, "script:a.pt+b.npz")]),
        ("script:a.pt+b.npz+0.1*clip:c+d.pt", [(1, "script:a.pt+b.npz"), (0.1, "clip:c+d.pt")]),
        ("demo+my_teachers_kd:Mine", [(1, "demo"), (1, "my_teachers_kd:Mine")]),
        ("nothing", [(1, "nothing")]),
    ],
)
def test_specs_of_several(spec: str, parts: list[tuple[float, str]]) -> None:
    assert split_spec(spec) == parts


def test_what_cannot_be_scrambled() -> None:
    with pytest.raises(TeacherError, match="--kd-control=scramble: the weights of 'mine' cannot be reached"):
        load_teachers("my_teachers_kd:Mine", control="scramble")


def test_several_are_loaded() -> None:
    found = load_teachers("demo+0.5*my_teachers_kd:Mine")
    assert [(weight, teacher.name) for weight, teacher in found] == [(1, "demo"), (0.5, "mine")]
    with pytest.raises(TeacherError, match="the weight 0 of 'demo' must be above 0"):
        load_teachers("clip+0*demo")
