"""Number types of a teacher, and the embeddings of texts that are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_plugin.errors import TeacherError
from kd_plugin.teachers import precision as module
from kd_plugin.teachers.openai_clip import OpenAIClip
from kd_plugin.teachers.precision import choose_precision
from kd_plugin.teachers.text_cache import kept_texts

TEXTS = ["a photo of a cat", "two dogs"]


@pytest.fixture
def make(vit_weights: dict[str, Tensor], cache: Path) -> Callable[[str], OpenAIClip]:
    return lambda precision: OpenAIClip.from_state_dict(vit_weights, "tiny", precision=precision)


def test_bf16_says_the_same_in_float32(make: Callable[[str], OpenAIClip]) -> None:
    exact, short = make("fp32"), make("bf16")
    assert (exact.precision, short.precision) == ("fp32", "bf16")
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for a, b in (
        (exact.embed_images(images), short.embed_images(images)),
        (exact.embed_texts(TEXTS), short.embed_texts(TEXTS)),
    ):
        assert a.dtype == b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert F.cosine_similarity(a, b).min() > 0.999


def test_bf16_lets_gradients_through(make: Callable[[str], OpenAIClip]) -> None:
    images = torch.zeros(2, 3, 32, 32, requires_grad=True)
    make("bf16").embed_images(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_small_teacher_on_a_cpu_is_not_measured(make: Callable[[str], OpenAIClip]) -> None:
    assert make("auto").precision == "fp32"


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_a_cpu_takes_what_is_measured_to_be_faster(faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(4, 4).requires_grad_(False)
    before = model.weight.clone()
    seconds = {"fp32": 1.0, "bf16": 1.0} | {faster: 0.5}
    monkeypatch.setattr(module, "_WORTH_MEASURING", 1)
    monkeypatch.setattr(module, "_seconds", lambda model, names, precision, forward: seconds[precision])
    chosen = choose_precision(model, ["weight"], "auto", lambda: torch.zeros(1), torch.device("cpu"))
    assert chosen == faster
    assert model.weight.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[faster]
    assert model.bias.dtype == torch.float32
    torch.testing.assert_close(model.weight.float(), before, rtol=0.01, atol=0.01)


def test_measuring_leaves_the_weights_as_they_were() -> None:
    model = nn.Linear(4, 4).requires_grad_(False)
    before, seen = model.weight.clone(), set()

    def forward() -> Tensor:
        seen.add(model.weight.dtype)
        return model.weight

    for precision in ("fp32", "bf16"):
        assert module._seconds(model, ["weight"], precision, forward) >= 0
    assert seen == {torch.float32, torch.bfloat16}
    assert torch.equal(model.weight, before)


def test_an_unknown_precision(make: Callable[[str], OpenAIClip]) -> None:
    with pytest.raises(TeacherError, match="--kd-precision: 'fp23' is unknown; nearest: 'fp32'"):
        make("fp23")


def test_texts_are_embedded_once_for_a_teacher(make: Callable[[str], OpenAIClip], cache: Path) -> None:
    teacher = make("fp32")
    first = teacher.embed_texts(TEXTS)
    teacher._model = None  # whoever computes now fails
    torch.testing.assert_close(teacher.embed_texts(TEXTS), first, rtol=0, atol=0)
    with pytest.raises(AttributeError):
        teacher.embed_texts(TEXTS[::-1])
    assert len(list((cache / "texts").iterdir())) == 1


def test_a_cache_of_no_use_costs_time_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.arange(6.0).view(2, 3)
    kept_texts("key", TEXTS, lambda: value)
    (file,) = (cache / "texts").iterdir()
    file.write_bytes(b"damaged")
    assert torch.equal(kept_texts("key", TEXTS, lambda: value + 1), value + 1)
    assert torch.equal(kept_texts("key", TEXTS, lambda: value + 2), value + 1)  # mended
    assert torch.equal(kept_texts("other", TEXTS, lambda: value + 2), value + 2)
    (cache / "file").touch()
    monkeypatch.setenv("KD_CACHE", str(cache / "file"))
    assert torch.equal(kept_texts("key", TEXTS, lambda: value + 3), value + 3)
