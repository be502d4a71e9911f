"""An image and a class to a logit: residual blocks, a sum over pixels, and a projection on the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.biggan.generator import require_resolution
from training.networks.biggan.layers import (
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    block_count,
    downsample,
)
from training.networks.interface import DiscriminatorNetwork
from training.networks.shapes import check_labels, check_shape

__all__ = ["Discriminator"]


class Block(nn.Module):
    """ReLU (not of the image), convolution, ReLU, convolution, optional halving; added to the mapped, halved input."""

    def __init__(self, in_channels: int, out_channels: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = SpectralConv2d(in_channels, out_channels)
        self.conv2 = SpectralConv2d(out_channels, out_channels)
        self.conv_sc = SpectralConv2d(in_channels, out_channels, kernel_size=1) if down or first else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.down:  # the shortcut too, before its 1x1 convolution: equal, at a quarter of the cost
            h, x = downsample(h), downsample(x)
        return h + (x if self.conv_sc is None else self.conv_sc(x))


class SumPool(nn.Module):
    """The sum over pixels of the positive parts: [N, C, H, W] -> [N, C]. A module, so that a plug-in can tap it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_features = channels  # as a linear layer says it

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).sum(dim=(2, 3))


class Discriminator(DiscriminatorNetwork):
    """BigGAN's discriminator for small images: `pool` gives the features, `linear` and `embed` judge them.

    Args:
        c_dim: width of the label, one-hot for classes; 0 = unconditional.
        img_resolution: a power of two of at least 8; 32 is the published one.
        img_channels: 3 for RGB.
        channels: width of every block: four times the authors' D_ch; 256 is the published one.

    `init_kwargs` holds these arguments.

    Source: as for the generator; the projection: Miyato and Koyama 2018, "cGANs with Projection Discriminator".
    """

    options: ClassVar[Mapping[str, str]] = {"channels": "cmax"}
    features = "pool"

    def __init__(self, c_dim: int, img_resolution: int, img_channels: int, channels: int = 256) -> None:
        # First statement, so that locals() are the arguments and nothing else.
        init_kwargs = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        require_resolution(img_resolution)
        self.init_kwargs = init_kwargs
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        downs = [True] * (block_count(img_resolution) - 1) + [False] * 2  # to 8x8, and two blocks there
        self.blocks = nn.ModuleList(
            nn.ModuleList([Block(channels if i else img_channels, channels, down, first=i == 0)])
            for i, down in enumerate(downs)
        )  # lists in a list: the authors' names
        self.pool = SumPool(channels)
        self.linear = SpectralLinear(channels, 1)
        if c_dim:
            self.embed = SpectralEmbedding(c_dim, channels)

    def forward(self, images: Tensor, c: Tensor | None = None, force_fp32: bool = False) -> Tensor:
        """See `DiscriminatorNetwork.forward`. Always in float32.

        Raises:
            ValueError: images or labels of the wrong shape.
        """
        check_shape("the image batch", images, (self.img_channels, self.img_resolution, self.img_resolution))
        c = check_labels(c, self.c_dim, len(images))
        h = images
        for blocks in self.blocks:
            h = blocks.get_submodule("0")(h)
        features = self.pool(h)
        logits: Tensor = self.linear(features)
        if c is not None:
            logits = logits + (self.embed(c) * features).sum(dim=1, keepdim=True)
        return logits

    def layers_from_the_image(self) -> list[nn.Module]:
        return [module for module in self.blocks.modules() if isinstance(module, SpectralConv2d)]
