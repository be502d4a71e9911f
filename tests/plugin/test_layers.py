"""Which layer to tap: the suggestion on the discriminators people have."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import kd_plugin
from kd_plugin import LayerError, list_layers
from kd_plugin.student.layers import names_and_widths
from training.networks.stylegan2 import Discriminator


def suggested(layers):
    (one,) = [layer for layer in layers if layer.suggested]
    return one


def dcgan() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(16, 1, 8), nn.Flatten(),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


class Projection(nn.Module):
    """Spectral GANs: blocks, a sum over the map, a linear logit and an embedded label."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.linear = nn.Linear(12, 1)
        self.embed = nn.Embedding(5, 12)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.block(x).sum(dim=(2, 3))
        return self.linear(h) + (self.embed(y) * h).sum(dim=1, keepdim=True)


def test_stylegan2():
    D = Discriminator(c_dim=0, img_resolution=32, img_channels=3, channel_base=256, channel_max=16)
    assert suggested(list_layers(D)).name == "b4.fc"
    layers = list_layers(D, torch.zeros(2, 3, 32, 32), torch.zeros(2, 0))
    assert suggested(layers).name == "b4.fc"
    assert suggested(layers).shape == (2, 16)
    assert "b8.conv1" in [layer.name for layer in layers]


def test_dcgan():
    assert suggested(list_layers(dcgan())).name == "3"
    layers = list_layers(dcgan(), torch.zeros(2, 3, 32, 32))
    assert (suggested(layers).name, suggested(layers).width) == ("4", 16)
    assert "<- suggested" in str(suggested(layers))
    assert str(layers[0]) == "0  Conv2d  8  [2, 8, 16, 16]"


def test_a_projection_discriminator():
    layers = list_layers(Projection(), torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    assert (suggested(layers).name, suggested(layers).width) == ("block", 12)


def test_what_is_suggested_can_be_attached(teacher, images, run):
    D = dcgan()
    best = suggested(list_layers(D, images(1, size=32)))
    kd = kd_plugin.attach(D, layer=best, teacher=teacher, terms={"agkd": 1.0}, balance=0)
    assert run(kd, D, images(1, size=32), images(2, size=32)).total > 0


def test_nothing_is_left_on_d(discriminator, images):
    before = discriminator.b4["fc"].weight.clone()
    list_layers(discriminator, images(1))
    assert not any(module._forward_hooks for module in discriminator.modules())
    assert torch.equal(before, discriminator.b4["fc"].weight)


class Hostile(nn.Module):
    """What public discriminators have beside the path to the logit: an embedded label, an auxiliary branch, a decoder,
    an attention map, a layer without gradient; and layers that change with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.utils.spectral_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.label = nn.Embedding(5, 8)
        self.scores, self.attention, self.tokens = nn.Linear(8, 16), nn.Softmax(dim=-1), nn.LayerNorm(8)
        self.frozen, self.side, self.decoder = nn.Linear(8, 8), nn.Linear(8, 4), nn.Conv2d(8, 6, 1)
        self.logit = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.drop(self.norm(self.body(x)))
        tokens = h.flatten(2).transpose(1, 2)  # [N, 16, 8]
        tokens = self.tokens(self.attention(self.scores(tokens)) @ tokens)
        pooled = tokens.mean(dim=1)
        with torch.no_grad():
            pooled = pooled + 0 * self.frozen(pooled)
        flat = tokens.mean(dim=1)
        return self.logit(flat) + (self.label(y) * flat).sum(1, keepdim=True), self.side(flat), self.decoder(h)


def state_of(d: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in d.state_dict().values()]


def test_only_layers_between_images_and_logits():
    d = Hostile()
    layers = list_layers(d, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    assert [layer.name for layer in layers] == ["body", "norm", "drop", "scores", "tokens"]
    assert [layer.width for layer in layers] == [8, 8, 8, 16, 8]
    assert suggested(layers).name == "tokens"
    assert suggested(layers).shape == (2, 16, 8)


def test_d_and_the_random_state_stay_as_they_are():
    d = Hostile()
    d(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))  # leaves a weight with a graph
    before, seed = state_of(d), (torch.get_rng_state(), random.getstate())
    list_layers(d, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(d), strict=True))
    assert all(parameter.grad is None for parameter in d.parameters())
    torch.rand(3), random.random()
    assert not torch.equal(seed[0], torch.get_rng_state())
    torch.set_rng_state(seed[0]), random.setstate(seed[1])
    images = torch.rand(2, 3, 4, 4)
    seed = (torch.get_rng_state(), random.getstate())
    list_layers(d, images, torch.tensor([0, 1]))
    assert torch.equal(seed[0], torch.get_rng_state())
    assert random.getstate() == seed[1]


@pytest.mark.parametrize("choose", [suggested, lambda layers: layers[1:3], lambda layers: ["norm", layers[2]]])
def test_layers_are_taken_as_they_are(teacher, images, choose):
    d = Hostile()
    labels = torch.tensor([0, 1, 2, 3])
    given = choose(list_layers(d, images(1, size=4), labels))
    assert all(isinstance(width, int) for width in names_and_widths(given)[1].values())
    kd = kd_plugin.attach(d, layer=given, teacher=teacher, terms={"agkd": 1.0}, balance=0)
    for role in ("real", "fake"):
        with kd.capture(role):
            d(images(1, size=4), labels)
    assert kd().total > 0


def test_features_in_what_a_layer_returns():
    class Several(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"map": x * 2, "flat": x.mean(dim=(2, 3)), "label": torch.zeros(len(x), 3)}

    class D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.several, self.logit = Several(), nn.Linear(3, 1)

        def forward(self, pyramid: list[torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"logits": self.logit(self.several(pyramid[0])["flat"])}

    layers = list_layers(D(), [torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)])
    assert [(layer.name, layer.width, layer.suggested) for layer in layers] == [("several[flat]", 3, True)]


def test_channels_last_maps():
    d = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Unflatten(1, (1, 6)), nn.Flatten(1, 2), nn.Flatten(2), nn.Linear(16, 5))
    layers = list_layers(d, torch.rand(2, 3, 4, 4))
    assert layers[0].width == 6

    class Last(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 2, 3, 1)

    d = nn.Sequential(nn.Conv2d(3, 6, 1), Last(), nn.Linear(6, 7), nn.Flatten(), nn.Linear(112, 1))
    assert [layer.width for layer in list_layers(d, torch.rand(2, 3, 4, 4))] == [6, 6, 7, 112]


def test_no_logits():
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 1)

    with pytest.raises(LayerError, match="nothing that D returns depends, with a gradient, on the images"):
        list_layers(Constant(), torch.rand(2, 3, 4, 4))
    with pytest.raises(LayerError, match="give the images that D is called with"):
        list_layers(Constant(), torch.tensor([1, 2]))
