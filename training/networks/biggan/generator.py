"""A latent and a class to an image: residual blocks with class-conditional batch norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnlib.errors import UserError
from training.networks.biggan.layers import (
    BatchNorm,
    ClassBatchNorm,
    SpectralConv2d,
    SpectralLinear,
    StoredStatistics,
    block_count,
)
from training.networks.interface import GeneratorNetwork
from training.networks.shapes import check_labels, check_shape

__all__ = ["Generator"]

FIRST = 4  # pixels of the first feature map


class Block(nn.Module):
    """Batch norm, ReLU, doubling, convolution, batch norm, ReLU, convolution; added to the doubled, mapped input."""

    def __init__(self, channels: int, c_dim: int) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(channels, channels)
        self.conv2 = SpectralConv2d(channels, channels)
        self.conv_sc = SpectralConv2d(channels, channels, kernel_size=1)
        self.bn1, self.bn2 = _batch_norm(channels, c_dim), _batch_norm(channels, c_dim)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        h = self.conv1(_double(F.relu(self.bn1(x, c))))
        h = self.conv2(F.relu(self.bn2(h, c)))
        return h + _double(self.conv_sc(x))  # a 1x1 convolution of doubled pixels, at a quarter of the cost


class Generator(GeneratorNetwork):
    """BigGAN's generator for small images: equal widths, one latent for the first layer, classes by batch norm.

    Args:
        z_dim: width of the latent.
        c_dim: width of the label, one-hot for classes; 0 = unconditional.
        img_resolution: a power of two of at least 8; 32 is the published one.
        img_channels: 3 for RGB.
        channels: width of every block: four times the authors' G_ch; 256 is the published one.

    `init_kwargs` holds these arguments. In eval mode batch norm uses its stored statistics, so that an image does not
    depend on its batch.

    Source: Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix C, and the
    CIFAR settings of the authors' code: no shared embedding, no attention.
    """

    options: ClassVar[Mapping[str, str]] = {"z_dim": "z_dim", "channels": "cmax"}
    averages_buffers = True

    def __init__(self, z_dim: int, c_dim: int, img_resolution: int, img_channels: int, channels: int = 256) -> None:
        # First statement, so that locals() are the arguments and nothing else.
        init_kwargs = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        require_resolution(img_resolution)
        self.init_kwargs = init_kwargs
        self.z_dim, self.c_dim = z_dim, c_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.linear = SpectralLinear(z_dim, channels * FIRST**2)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Block(channels, c_dim)]) for _ in range(block_count(img_resolution))
        )  # lists in a list: the authors' names
        output = SpectralConv2d(channels, img_channels)
        self.output_layer = nn.Sequential(BatchNorm(channels), nn.ReLU(), output)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> Tensor:
        """See `GeneratorNetwork.forward`. `truncation_psi` scales z; there are no noise inputs, and all is in float32.

        Raises:
            UserError: a truncation_cutoff, which is for networks with one w a layer.
            ValueError: latents or labels of the wrong shape.
        """
        if truncation_cutoff is not None:
            raise UserError(
                "--trunc-cutoff: this network (biggan) has no layers with a latent of their own; leave it out"
            )
        check_shape("the latent z", z, (self.z_dim,))
        c = check_labels(c, self.c_dim, z.shape[0])
        h = self.linear(z.to(torch.float32) * truncation_psi).unflatten(1, (-1, FIRST, FIRST))
        for blocks in self.blocks:
            h = blocks.get_submodule("0")(h, c)
        image: Tensor = self.output_layer(h).tanh()
        return image

    def running_averages(self) -> list[Tensor]:
        return [
            statistics
            for module in self.modules()
            if isinstance(module, StoredStatistics)
            for statistics in (module.stored_mean, module.stored_var)
        ]


def require_resolution(img_resolution: int) -> None:
    """
    Raises:
        UserError: not a power of two of at least 8.
    """
    if img_resolution < 8 or img_resolution & (img_resolution - 1):
        raise UserError(
            f"--resolution: {img_resolution} is not a power of two of at least 8; give 32 for CIFAR, or 8, 16, 64, ..."
        )


def _batch_norm(channels: int, c_dim: int) -> BatchNorm | ClassBatchNorm:
    return ClassBatchNorm(channels, c_dim) if c_dim else BatchNorm(channels)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)
