"""`open_clip:` against a package of that name with the calls it is documented to have; see also -m upstream."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.teachers import load_teacher


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Conv2d(3, 6, 8, stride=8)
        self.visual.preprocess_cfg = {  # type: ignore[assignment]
            "size": (16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear",
            "resize_mode": "squash",
        }  # fmt: skip
        self.words = nn.Embedding(100, 6)

    def encode_image(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual(images).mean(dim=(2, 3))
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        rows: Tensor = self.words(tokens).sum(dim=1)
        return rows


class Words:
    """A letter a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 97 for letter in text]

    def __call__(self, texts: list[str]) -> Tensor:
        rows = [([98, *self.encode(text), 99] + [0] * 12)[:12] for text in texts]
        return torch.tensor(rows)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    module = types.ModuleType("open_clip")

    def create_model(arch: str, **options: Any) -> Network:
        asked.update(arch=arch, **options)
        torch.manual_seed(3)
        return Network()

    module.create_model = create_model  # type: ignore[attr-defined]
    module.get_tokenizer = lambda arch: Words()  # type: ignore[attr-defined]
    module.list_models = lambda: ["ViT-B-32", "ViT-B-16", "RN50"]  # type: ignore[attr-defined]
    module.list_pretrained_tags_by_model = lambda arch: ["openai", "laion2b_s34b_b79k"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return asked


def test_it_is_the_network(package: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    teacher = load_teacher("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert torch.equal(before, torch.get_rng_state())
    assert (package["arch"], package["pretrained"]) == ("ViT-B-32", "laion2b_s34b_b79k")
    torch.manual_seed(3)
    network = Network()
    images = torch.rand(2, 3, 32, 24) * 2 - 1
    squashed = torch.nn.functional.interpolate((images + 1) / 2, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(
        teacher.embed_images(images), network.encode_image((squashed - 0.5) / 0.25), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(teacher.embed_texts(["ab", "c"]), network.encode_text(Words()(["ab", "c"])))
    assert teacher.embed_dim == 6


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:ViT-B-23/openai", "there is no architecture 'ViT-B-23'; nearest: 'ViT-B-32'"),
        ("open_clip:ViT-B-32/openia", "ViT-B-32 has no weights 'openia'; nearest: 'openai'"),
        ("open_clip:ViT-B-32", "ViT-B-32 has no weights ''; known: 'openai', 'laion2b_s34b_b79k'"),
    ],
)
def test_unknown_names(package: dict[str, Any], spec: str, message: str) -> None:
    with pytest.raises(TeacherError) as error:
        load_teacher(spec)
    assert message in str(error.value)


def test_a_text_that_would_be_cut(package: dict[str, Any]) -> None:
    teacher = load_teacher("open_clip:RN50/openai")
    with pytest.raises(PromptError, match=r"'a far too long text' has 21 tokens, .* takes 12 at most"):
        teacher.embed_texts(["a far too long text"])


@pytest.mark.parametrize("error", [ImportError("No module named 'open_clip'"), RuntimeError("torchvision::nms")])
def test_without_the_package(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "open_clip":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TeacherError, match=r"needs a package that cannot be imported .*: pip install open_clip_torch"):
        load_teacher("open_clip:ViT-B-32/openai")
