"""A teacher small and deterministic enough to be checked by hand, and a discriminator to attach to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import kd_plugin
from kd_plugin import Distilled, Distiller, PromptError

PROMPTS = ["a photo of a cat", "a sketch of a cat", "a blurry cat"]
WIDTH = 6  # E of the fake teacher and F of the fake discriminator's last layer


class FakeTeacher:
    """A fixed projection of the image shrunk to 4 x 4; a text becomes a vector seeded by its hash.

    Its network hides in a list, has dropout (asleep in eval mode) and real parameters, so that a test can see whether
    somebody reached them. `calls` holds what embed_images was given, `with_graph` whether gradients were on.
    """

    name = "fake"
    fingerprint = "0" * 64

    def __init__(self, width: int = WIDTH, vocabulary: tuple[str, ...] | None = None) -> None:
        self.embed_dim = width
        self.vocabulary = vocabulary
        self.calls: list[Tensor] = []
        self.with_graph: list[bool] = []
        self.text_calls = 0
        projection = nn.Linear(3 * 4 * 4, width)
        generator = torch.Generator().manual_seed(1)
        for parameter in projection.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.network = nn.Sequential(nn.Flatten(), projection, nn.Tanh(), nn.Dropout(0.5)).eval().requires_grad_(False)

    def embed_images(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        assert images.shape[1] == 3
        self.calls.append(images.detach())
        self.with_graph.append(torch.is_grad_enabled())
        embeddings: Tensor = self.network(functional.adaptive_avg_pool2d(images, 4))
        return embeddings

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.text_calls += 1
        for text in texts:
            if self.vocabulary is not None and text not in self.vocabulary:
                raise PromptError(f"the teacher does not know '{text}'")
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        return torch.stack([torch.randn(self.embed_dim, generator=torch.Generator().manual_seed(s)) for s in seeds])


class Discriminator(nn.Module):
    """Names as in StyleGAN2: `b4.conv` gives [N, 5, h, w], `b4.fc` gives [N, WIDTH], `b4.out` the logits [N, 1]."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.b4 = nn.ModuleDict(
            {
                "conv": nn.Conv2d(channels, 5, 3, padding=1),
                "fc": nn.Linear(5, WIDTH),
                "act": nn.LeakyReLU(0.2, inplace=True),  # as some discriminators do, to catch a tap that is fooled
                "out": nn.Linear(WIDTH, 1),
            }
        )

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.b4["conv"](img).tanh().mean(dim=(2, 3))
        logits: Tensor = self.b4["out"](self.b4["act"](self.b4["fc"](x)))
        return logits


@pytest.fixture
def make_teacher() -> Callable[..., FakeTeacher]:
    return FakeTeacher


@pytest.fixture
def teacher() -> FakeTeacher:
    return FakeTeacher()


@pytest.fixture
def make_discriminator() -> Callable[..., Discriminator]:
    def make(channels: int = 3, seed: int = 0) -> Discriminator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Discriminator(channels)

    return make


@pytest.fixture
def discriminator(make_discriminator: Callable[..., Discriminator]) -> Discriminator:
    return make_discriminator()


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """images(seed, n): [n, 3, 8, 8] in [-1, 1]."""

    def make(seed: int, n: int = 4, channels: int = 3, size: int = 8) -> Tensor:
        return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    return make


@pytest.fixture
def prompts() -> list[str]:
    return list(PROMPTS)


# One thing at a time: no normalisation, no centring, no balance, and nothing on the generator.
BARE = {
    "p": 0.7, "norm": "none", "centre": False, "balance": 0.0, "match_pull": 0.0, "match": 0.0, "critic": 0.0,
    "match_distance": "energy", "match_memory": 0,
}  # fmt: skip


@pytest.fixture
def attach(discriminator: Discriminator, teacher: FakeTeacher) -> Callable[..., Distiller]:
    """attach() to the fixtures' D and teacher, with the bare terms of D; everything can be overridden."""

    def make(d: nn.Module = discriminator, **options: Any) -> Distiller:
        bare = {} if options.keys() & {"config", "variant"} else dict(BARE)
        if "terms" in options:
            bare.pop("match", None), bare.pop("critic", None)
        return kd_plugin.attach(d, **{"teacher": teacher, "prompts": PROMPTS, **bare, **options})

    return make


@pytest.fixture
def run() -> Callable[..., Distilled]:
    """run(kd, D, real, fake): one step, as a host makes it."""

    def step(kd: Distiller, d: nn.Module, real: Any, fake: Any, clean: Any = (None, None)) -> Distilled:
        with kd.capture("real", clean=clean[0]):
            d(real)
        with kd.capture("fake", clean=clean[1]):
            d(fake)
        return kd()

    return step


@pytest.fixture
def both(images: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """both(kd, D, step): captures a step, and gives the adversarial loss."""

    def capture(kd: Distiller, d: nn.Module, step: int = 0) -> Tensor:
        with kd.capture("real"):
            real = d(images(2 * step + 1))
        with kd.capture("fake"):
            fake = d(images(2 * step + 2))
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()

    return capture
