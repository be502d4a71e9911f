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


@pytest.mark.parametrize(("gain", "chosen"), [(1.9, "fp32"), (2.0, "bf16")])
def test_a_cpu_takes_bf16_where_products_are_much_faster(
    gain: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []
    monkeypatch.setattr(module, "_WORTH_MEASURING", 52)
    monkeypatch.setattr(module, "_gain", lambda parameter: asked.append(parameter) or gain)
    small, large = torch.zeros(4, 4), torch.zeros(9, 4)
    assert choose_precision("auto", [small, large], "cpu") == chosen
    assert asked == [large]
    assert choose_precision("auto", [large], "cpu") == "fp32"  # too few to matter
    assert len(asked) == 1


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(5, 4, 3)])
def test_measuring_leaves_the_parameter_as_it_was(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "least_seconds", lambda work: {torch.float32: 3.0, torch.bfloat16: 1.5}[work().dtype])
    before = layer.weight.clone()
    assert module._gain(layer.weight) == 2
    assert torch.equal(layer.weight, before)


def test_an_unknown_precision(make: Callable[[str], OpenAIClip]) -> None:
    with pytest.raises(TeacherError, match="--kd-precision=fp23 is unknown; nearest: 'fp32'"):
        make("fp23")


def test_texts_are_embedded_once_for_a_teacher(
    make: Callable[[str], OpenAIClip], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make("fp32")
    first = teacher.embed_texts(TEXTS)
    monkeypatch.setattr(teacher, "tokenize", None)  # whoever computes now fails
    torch.testing.assert_close(teacher.embed_texts(TEXTS), first, rtol=0, atol=0)
    with pytest.raises(TypeError):
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
