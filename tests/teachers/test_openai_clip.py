"""The CLIP teacher against the package's own network and tokenizer, on the same random weights."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.teachers import Teacher, clip_package
from kd_plugin.teachers.openai_clip import OpenAIClip

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
TEXTS = ["a photo of a cat", "Two  DOGS &amp; a café, isn't it?", "日本 🐟", "x " * 75]
TOWERS = ["tiny_vit", "tiny_resnet"]


@pytest.fixture
def model(request: pytest.FixtureRequest) -> nn.Module:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def teacher(tiny_vit: nn.Module) -> OpenAIClip:
    return OpenAIClip.from_state_dict(tiny_vit.state_dict(), "tiny")


def test_weights_given_away_are_not_kept(tiny_vit: nn.Module, teacher: OpenAIClip) -> None:
    weights = {name: value.clone() for name, value in tiny_vit.state_dict().items()}
    made = OpenAIClip.from_state_dict(weights, "tiny", give_away=True)
    assert not weights
    images = images_for(tiny_vit)
    assert torch.equal(made.embed_images(images), teacher.embed_images(images))
    assert made.fingerprint == teacher.fingerprint


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_half_precision_files_are_used_as_they_are(tiny_vit: nn.Module, precision: str) -> None:
    half = {name: value.half() for name, value in tiny_vit.state_dict().items()}
    whole = {name: value.float() for name, value in half.items()}
    images = images_for(tiny_vit)
    one, other = (OpenAIClip.from_state_dict(weights, "tiny", precision=precision) for weights in (half, whole))
    assert torch.equal(one.embed_images(images), other.embed_images(images))
    assert one.fingerprint == other.fingerprint
    assert all(p.dtype != torch.float16 for p in one.network.parameters())


def images_for(model: nn.Module, n: int = 3) -> Tensor:
    size = model.visual.input_resolution
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("model", TOWERS, indirect=True)
def test_embed_images_is_the_packages_encode_image(model: nn.Module) -> None:
    teacher = OpenAIClip.from_state_dict(model.state_dict(), "tiny")
    images = images_for(model)
    expected = model.encode_image(((images + 1) / 2 - MEAN) / STD)
    assert teacher.embed_dim == expected.shape[1] == 48
    # Weights rounded to half precision, as the package leaves them, would be off by 1e-3.
    torch.testing.assert_close(
        teacher.embed_images(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )


@pytest.mark.parametrize("model", TOWERS, indirect=True)
def test_embed_texts_is_the_packages_tokenize_and_encode_text(
    model: nn.Module, reference_tokens: Callable[[str], Tensor]
) -> None:
    teacher = OpenAIClip.from_state_dict(model.state_dict(), "tiny")
    expected = model.encode_text(torch.stack([reference_tokens(text) for text in TEXTS]))
    embedded = teacher.embed_texts(TEXTS)
    torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-5)
    assert embedded.dtype == torch.float32
    assert not embedded.requires_grad


def test_many_texts_are_embedded_in_parts(teacher: OpenAIClip, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, read, sizes = teacher.embed_texts(TEXTS), teacher._text_side, []
    monkeypatch.setattr(teacher, "_text_side", lambda texts: sizes.append(len(texts)) or read(texts))
    monkeypatch.setattr(teacher, "fingerprint", "another")  # else they would come from the cache
    monkeypatch.setattr("kd_plugin.teachers.network._TEXTS_AT_ONCE", 3)
    torch.testing.assert_close(teacher.embed_texts(TEXTS), expected)
    assert max(sizes) == 3
    assert sum(sizes) == len(TEXTS) > 3


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 20, 31), (2, 3, 90, 64)])
def test_images_of_any_size(teacher: OpenAIClip, shape: tuple[int, ...]) -> None:
    assert teacher.embed_images(torch.zeros(shape)).shape == (shape[0], 48)


@pytest.mark.parametrize("model", TOWERS, indirect=True)
def test_gradient_with_respect_to_the_images_by_finite_differences(model: nn.Module) -> None:
    teacher = OpenAIClip.from_state_dict(model.state_dict(), "tiny")
    generator = torch.Generator().manual_seed(0)
    # Smaller than the network's size and away from the range's ends, so that the resizing takes part and nothing clips.
    images = (torch.rand(2, 3, 24, 24, generator=generator) - 0.5).requires_grad_(True)
    weights = torch.randn(2, 48, generator=generator, dtype=torch.float64)

    def objective(x: Tensor) -> Tensor:
        return (teacher.embed_images(x).double() * weights).sum()

    (gradient,) = torch.autograd.grad(objective(images), images)
    # Along the gradient the slope is its norm; across it, float32 would drown the slope in rounding.
    step, direction = 1e-2, gradient / gradient.norm()
    with torch.no_grad():
        numeric = (objective(images + step * direction) - objective(images - step * direction)) / (2 * step)
    torch.testing.assert_close(gradient.norm().double(), numeric, rtol=0.01, atol=0.0)


def test_frozen_for_real(teacher: OpenAIClip) -> None:
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    teacher.embed_images(images).sum().backward()
    assert images.grad is not None
    network = teacher.network
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    holder = nn.Module()
    holder.teacher = teacher
    holder.train().half()
    assert not any(module.training for module in network.modules())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert not holder.state_dict()
    assert not list(holder.parameters())


def test_without_grad_the_caller_decides(teacher: OpenAIClip) -> None:
    with torch.no_grad():
        assert not teacher.embed_images(torch.zeros(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_autocast_and_half_images_do_not_change_the_precision(teacher: OpenAIClip, tiny_vit: nn.Module) -> None:
    images = images_for(tiny_vit)
    expected = teacher.embed_images(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(teacher.embed_images(images), expected)
    assert teacher.embed_images(images.bfloat16()).dtype == torch.float32


def test_copies_share_and_pickles_refuse(teacher: OpenAIClip) -> None:
    assert isinstance(teacher, Teacher)
    assert copy.copy(teacher) is teacher
    assert copy.deepcopy({"kd": teacher})["kd"] is teacher
    with pytest.raises(TeacherError, match="teacher 'tiny' cannot be pickled: keep its spec and fingerprint"):
        pickle.dumps(teacher)


def test_loading_leaves_the_weights_and_the_random_stream_alone(vit_weights: dict[str, Tensor]) -> None:
    given = vit_weights | {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
    before = {name: value.clone() for name, value in given.items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    OpenAIClip.from_state_dict(given, "tiny")
    assert torch.equal(torch.rand(4), expected)
    assert list(given) == list(before)
    assert all(torch.equal(given[name], before[name]) for name in before)


def test_fingerprint_follows_the_weights_only(vit_weights: dict[str, Tensor]) -> None:
    first = OpenAIClip.from_state_dict(vit_weights, "one").fingerprint
    shuffled = dict(reversed(vit_weights.items())) | {"vocab_size": torch.tensor(49408)}
    assert OpenAIClip.from_state_dict(shuffled, "other").fingerprint == first
    changed = vit_weights | {"visual.proj": vit_weights["visual.proj"] + 1e-6}
    assert OpenAIClip.from_state_dict(changed, "one").fingerprint != first
    assert len(first) == 64


# ---- messages ----


def test_prompt_that_is_too_long(teacher: OpenAIClip) -> None:
    with pytest.raises(PromptError) as caught:
        teacher.embed_texts(["fine", "x " * 76])
    assert str(caught.value) == (
        f"--kd-prompts: '{'x ' * 30}...' has 78 tokens, start and end marks included; teacher 'tiny' takes 77 at "
        "most: shorten it"
    )


@pytest.mark.parametrize("prompt", ["", "   \t"])
def test_empty_prompt(teacher: OpenAIClip, prompt: str) -> None:
    with pytest.raises(PromptError, match=r"--kd-prompts: an empty prompt \('.*'\) has no words"):
        teacher.embed_texts([prompt])


def test_no_prompt(teacher: OpenAIClip) -> None:
    with pytest.raises(PromptError, match="'tiny' was given no prompt to embed; give texts with --kd-prompts"):
        teacher.embed_texts([])


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]
)
def test_images_of_another_kind(teacher: OpenAIClip, images: Tensor) -> None:
    with pytest.raises(
        TeacherError, match=r"given images of shape \[.*\] and torch\..*; it takes float \[N, 3, H, W\]"
    ):
        teacher.embed_images(images)


def test_images_on_another_device(teacher: OpenAIClip) -> None:
    with pytest.raises(TeacherError, match=r"the images are on meta and the teacher is on cpu; call load_teacher"):
        teacher.embed_images(torch.zeros(2, 3, 8, 8, device="meta"))


def test_weights_of_another_network() -> None:
    with pytest.raises(TeacherError) as caught:
        OpenAIClip.from_state_dict(nn.Linear(2, 2).state_dict(), "clip:x.pt")
    assert "'clip:x.pt' is not a CLIP with OpenAI's names: it lacks visual.conv1.weight, " in str(caught.value)
    assert "(it begins with: weight, bias); give one of OpenAI's files, such as --kd=clip:ViT-B/32" in str(caught.value)


@pytest.mark.parametrize(
    ("lost", "found"),
    [("visual.transformer.resblocks.1.mlp.c_fc.weight", "Missing key"), ("visual.positional_embedding", "KeyError")],
)
def test_incomplete_weights(vit_weights: dict[str, Tensor], lost: str, found: str) -> None:
    del vit_weights[lost]
    with pytest.raises(TeacherError, match="do not fit OpenAI's CLIP architecture") as caught:
        OpenAIClip.from_state_dict(vit_weights, "x")
    assert lost in str(caught.value)
    assert found in str(caught.value)
    assert len(str(caught.value)) < 400


def test_another_vocabulary(vit_weights: dict[str, Tensor]) -> None:
    vit_weights["token_embedding.weight"] = torch.zeros(1000, 64)
    with pytest.raises(TeacherError, match="'x' has 1000 tokens, OpenAI's tokenizer has 49408"):
        OpenAIClip.from_state_dict(vit_weights, "x")


# ---- the package ----


@pytest.fixture
def fresh_package() -> None:
    clip_package._load.cache_clear()
    yield
    clip_package._load.cache_clear()


def found_at(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "clip" else real(name))


@pytest.mark.usefixtures("fresh_package")
def test_package_missing(monkeypatch: pytest.MonkeyPatch, vit_weights: dict[str, Tensor]) -> None:
    found_at(monkeypatch, None)
    with pytest.raises(TeacherError, match="CLIP package, which is not installed: pip install openai-clip"):
        OpenAIClip.from_state_dict(vit_weights, "x")


@pytest.mark.usefixtures("fresh_package")
def test_another_package_called_clip(monkeypatch: pytest.MonkeyPatch, vit_weights: dict[str, Tensor]) -> None:
    found_at(monkeypatch, SimpleNamespace(origin="/home/me/clip.py", submodule_search_locations=None))
    with pytest.raises(TeacherError, match=r"the 'clip' that Python finds \(/home/me/clip\.py\) is another one"):
        OpenAIClip.from_state_dict(vit_weights, "x")


@pytest.mark.usefixtures("fresh_package")
def test_package_lacks_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vit_weights: dict[str, Tensor]
) -> None:
    (tmp_path / "simple_tokenizer.py").touch()
    (tmp_path / "model.py").write_text("import a_package_that_is_not_there")
    found_at(monkeypatch, SimpleNamespace(origin="", submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(TeacherError, match=r"lacks something it needs \(No module named 'a_package.*pip install"):
        OpenAIClip.from_state_dict(vit_weights, "x")


@pytest.mark.usefixtures("fresh_package")
def test_the_packages_init_never_runs(teacher: OpenAIClip, vit_weights: dict[str, Tensor]) -> None:
    OpenAIClip.from_state_dict(vit_weights, "x").embed_texts(["a cat"])
    assert "clip" not in sys.modules
    assert "torchvision" not in sys.modules
