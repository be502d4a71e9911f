"""Tiny CLIPs with random weights, built by the installed package's own classes, found without any code of ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from kd_plugin.errors import command_line

PACKAGE = Path(str(distribution("openai-clip").locate_file("clip")))


@pytest.fixture(autouse=True)
def _on_the_command_line() -> Iterator[None]:
    """Messages name flags here; test_options.py and test_attach.py have their other form."""
    with command_line():
        yield


def load_from_package(stem: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{stem}", PACKAGE / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tiny(seed: int, **vision: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = load_from_package("model").CLIP(
            embed_dim=48,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=2,
            **vision,
        )
        for name, tensor in model.state_dict().items():  # away from the initialisation, in which whole branches are 0
            if tensor.is_floating_point() and name != "token_embedding.weight":
                tensor.add_((torch.rand_like(tensor) - 0.5) * 0.2)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_vit() -> nn.Module:
    return _tiny(1, image_resolution=32, vision_layers=2, vision_width=64, vision_patch_size=8)


@pytest.fixture(scope="session")
def tiny_resnet() -> nn.Module:
    return _tiny(2, image_resolution=64, vision_layers=(1, 2, 1, 1), vision_width=8, vision_patch_size=None)


@pytest.fixture(scope="session")
def clip_package_folder() -> Path:
    return PACKAGE


@pytest.fixture(scope="session")
def reference_tokens() -> Callable[[str], Tensor]:
    """One text -> [77] tokens, as the package's `tokenize` fills them in."""
    bpe = load_from_package("simple_tokenizer").SimpleTokenizer()

    def tokenize(text: str) -> Tensor:
        tokens = [bpe.encoder["<|startoftext|>"], *bpe.encode(text), bpe.encoder["<|endoftext|>"]]
        return torch.tensor(tokens + [0] * (77 - len(tokens)))

    return tokenize


@pytest.fixture
def vit_weights(tiny_vit: nn.Module) -> dict[str, Tensor]:
    return dict(tiny_vit.state_dict())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("KD_CACHE", str(folder))
    return folder
