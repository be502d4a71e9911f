"""The silent parts of an architecture: the activation and the width of a head."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kd_plugin.errors import TeacherError
from kd_plugin.teachers import load_teacher
from kd_plugin.teachers.clip_architecture import set_activation
from kd_plugin.teachers.clip_files import read_weights
from kd_plugin.teachers.openai_clip import OpenAIClip
from kd_plugin.teachers.preprocess import Preprocess
from tests.teachers.test_clip_files import save_torchscript

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def with_gelu(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    set_activation(model, "GELU")
    return model


def test_the_archives_own_activation_counts(tiny_vit: nn.Module, tmp_path: Path) -> None:
    embedded = {}
    for activation, model in (("QuickGELU", tiny_vit), ("GELU", with_gelu(tiny_vit))):
        path = tmp_path / f"{activation}.pt"
        save_torchscript(model, path)
        assert read_weights(path).activation == activation
        teacher = load_teacher(f"clip:{path}")
        assert isinstance(teacher, OpenAIClip)
        assert teacher.remark == f"activation {activation}, as the file's own code"
        with torch.no_grad():
            expected = model.encode_image(Preprocess(32)(images()))
            expected_text = model.encode_text(torch.tensor([teacher.tokenize("a cat")]))
        torch.testing.assert_close(teacher.embed_images(images()), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(teacher.embed_texts(["a cat"]), expected_text, rtol=1e-5, atol=1e-5)
        embedded[activation] = teacher.embed_images(images())
        embedded[activation + " fingerprint"] = teacher.fingerprint
    assert (embedded["GELU"] - embedded["QuickGELU"]).abs().max() > 1e-3
    assert embedded["GELU fingerprint"] != embedded["QuickGELU fingerprint"]


def test_without_code_the_assumption_is_said(vit_weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(vit_weights, tmp_path / "state.pt")
    assert read_weights(tmp_path / "state.pt").activation is None
    assert getattr(load_teacher(f"clip:{tmp_path / 'state.pt'}"), "remark", "") == "activation QuickGELU, assumed"


def test_a_resnets_archive_has_the_text_towers_activation(tiny_resnet: nn.Module, tmp_path: Path) -> None:
    save_torchscript(tiny_resnet, tmp_path / "rn.pt")
    assert read_weights(tmp_path / "rn.pt").activation == "QuickGELU"


@pytest.mark.parametrize(
    ("key", "width", "words"),
    [
        ("visual.class_embedding", 1280, r"its image transformer is 1280 wide \(ViT-H/14, heads of 80\)"),
        ("visual.class_embedding", 96, r"its image transformer is 96 wide \(no multiple of 64\)"),
        ("ln_final.weight", 100, r"its text transformer is 100 wide \(no multiple of 64\)"),
    ],
)
def test_heads_that_are_not_64_wide(key: str, width: int, words: str, vit_weights: dict[str, Tensor]) -> None:
    with pytest.raises(TeacherError, match=f"{words}; OpenAI's architecture has heads of 64"):
        OpenAIClip.from_state_dict({**vit_weights, key: torch.zeros(width)}, "other")


def test_the_content_decides_not_the_suffix(tiny_vit: nn.Module, tmp_path: Path) -> None:
    save_torchscript(tiny_vit, tmp_path / "script.safetensors")
    torch.save(dict(tiny_vit.state_dict()), tmp_path / "state.bin")
    safetensors.torch.save_file(tiny_vit.state_dict(), tmp_path / "tensors.safetensors")
    shutil.move(tmp_path / "tensors.safetensors", tmp_path / "tensors.pt")
    teachers = [load_teacher(f"clip:{tmp_path / name}") for name in ("script.safetensors", "state.bin", "tensors.pt")]
    assert len({teacher.fingerprint for teacher in teachers}) == 1
