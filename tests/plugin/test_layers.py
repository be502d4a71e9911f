"""Which layer to tap: the suggestion on the discriminators people have."""

from __future__ import annotations

import torch
from torch import nn

import kd_plugin
from kd_plugin import list_layers
from training.networks import Discriminator


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
    kd = kd_plugin.attach(D, layer=best.name, width=best.width, teacher=teacher, terms={"agkd": 1.0}, balance=0)
    assert run(kd, D, images(1, size=32), images(2, size=32)).total > 0


def test_nothing_is_left_on_d(discriminator, images):
    before = discriminator.b4["fc"].weight.clone()
    list_layers(discriminator, images(1))
    assert not any(module._forward_hooks for module in discriminator.modules())
    assert torch.equal(before, discriminator.b4["fc"].weight)
