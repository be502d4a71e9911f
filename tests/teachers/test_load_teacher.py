"""Specs: which teacher they name, and what the user reads when they name none."""

from __future__ import annotations

import pytest
import torch

from kd_plugin.errors import TeacherError
from kd_plugin.teachers import TEACHERS, load_teacher
from kd_plugin.teachers.openai_clip import OpenAIClip


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("clop", "--kd=clop: unknown teacher 'clop'; nearest: 'clip'; the forms are: clip, clip:ViT-B/32, "),
        ("scrip:a.pt", "--kd=scrip:a.pt: unknown teacher 'scrip'; nearest: 'script'"),
        (r"C:\ViT.pt", "unknown teacher 'C'; known: 'clip', 'open_clip', 'hf', 'script', 'demo'; the forms are:"),
        ("none", "--kd=none: unknown teacher 'none'"),
        ("", "--kd=: unknown teacher ''"),
        ("demo:big", "--kd=demo:big: the demo teacher has no variants; give --kd=demo"),
    ],
)
def test_unknown_specs(spec: str, found: str) -> None:
    with pytest.raises(TeacherError) as caught:
        load_teacher(spec)
    assert found in str(caught.value)


def test_a_registered_scheme_gets_the_rest_and_the_device(
    tiny_vit: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = OpenAIClip.from_state_dict(tiny_vit.state_dict(), "mine")
    asked = []

    def load(rest: str, device: torch.device, precision: str) -> OpenAIClip:
        asked.append((rest, device, precision))
        return teacher

    monkeypatch.setattr(TEACHERS, "_entries", dict(TEACHERS._entries))
    TEACHERS.register("mine")(load)
    assert load_teacher("mine:a:b", "cpu", "bf16") is teacher
    assert asked == [("a:b", torch.device("cpu"), "bf16")]


def test_clip_alone_is_vit_b_32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find(model: str) -> None:
        asked.append(model)
        raise TeacherError("asked")

    monkeypatch.setattr("kd_plugin.teachers.clip_files.find_weights", find)
    for spec in ("clip", "clip:", "clip:RN50"):
        with pytest.raises(TeacherError, match="asked"):
            load_teacher(spec)
    assert asked == ["ViT-B/32", "ViT-B/32", "RN50"]
