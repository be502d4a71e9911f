"""An image (and a label) to a logit: the StyleGAN2 discriminator, residual, skip or plain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from dnnlib.errors import UserError
from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.networks.interface import DiscriminatorNetwork
from training.networks.shapes import check_labels, check_shape
from training.networks.stylegan2.layers import (
    RESAMPLE_TAPS,
    Conv2dLayer,
    FullyConnectedLayer,
    block_dtype,
    block_resolutions,
    channels_at,
    compute_dtype,
    low_precision_blocks,
)
from training.networks.stylegan2.mapping import MappingNetwork

__all__ = ["ARCHITECTURES", "Discriminator", "group_size_of", "minibatch_std"]

ARCHITECTURES = ("resnet", "skip", "orig")


def group_size_of(batch: int, most: int) -> int:
    """The largest group of at most `most` samples that divides the batch."""
    return next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Append one channel: how much the samples of a group differ, averaged over everything but the group.

    Sample n is in group n mod (N / group_size), so that neighbours in a batch are in different groups.

    Args:
        x: [N, C, H, W].
        group_size: samples to a group, at most; see `group_size_of`.

    Returns:
        [N, C + 1, H, W]; the last channel is constant within an image.

    Source: Karras et al. 2018, "Progressive Growing of GANs", section 3.
    """
    n, c, h, w = x.shape
    group_size = group_size_of(n, group_size)
    groups = x.reshape(group_size, n // group_size, c, h, w)
    variance = groups.var(dim=0, correction=0)  # [N / group_size, C, H, W]
    spread = (variance + 1e-8).sqrt().mean(dim=[1, 2, 3])
    channel = spread.repeat(group_size).reshape(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, channel], dim=1)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a halving of the resolution; reads the image if it is the first, or always in "skip"."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        img_channels: int,
        architecture: str,
        dtype: torch.dtype,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.dtype = dtype
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS))
        reads_image = in_channels == 0 or architecture == "skip"
        self.fromrgb = None
        if reads_image:
            self.fromrgb = Conv2dLayer(img_channels, mid_channels, 1, activation="lrelu", conv_clamp=conv_clamp)
        self.conv0 = Conv2dLayer(mid_channels, mid_channels, 3, activation="lrelu", conv_clamp=conv_clamp)
        self.conv1 = Conv2dLayer(mid_channels, out_channels, 3, activation="lrelu", down=2, conv_clamp=conv_clamp)
        if architecture == "resnet":
            self.skip = Conv2dLayer(mid_channels, out_channels, 1, bias=False, down=2)

    def forward(self, x: Tensor | None, img: Tensor, force_fp32: bool) -> tuple[Tensor, Tensor]:
        """(features, image) of this resolution -> those of half of it; x is None for the first block.

        Only "skip" reads the image again below the first block, hence only it reduces the image.
        """
        dtype = compute_dtype(self.dtype, img.device, force_fp32)
        x = _add_image(self.fromrgb, x, img, dtype)
        if self.architecture == "skip":
            img = downsample2d(img, self.resample_filter)
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), img
        gain = math.sqrt(0.5)  # the sum of the two branches keeps the variance of one
        return self.skip(x, gain=gain) + self.conv1(self.conv0(x), gain=gain), img


def _add_image(fromrgb: Conv2dLayer | None, x: Tensor | None, img: Tensor, dtype: torch.dtype) -> Tensor:
    """A block's input in `dtype`: the features from above, `fromrgb` of the image, or their sum."""
    parts = []
    if x is not None:
        parts.append(x.to(dtype))
    if fromrgb is not None:
        parts.append(fromrgb(img.to(dtype)))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


class DiscriminatorEpilogue(nn.Module):
    """Minibatch statistics, one convolution, then `fc` (the features a plug-in taps) and `out` (the logit)."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        reads_image: bool,
        mbstd_group_size: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        self.mbstd_group_size = mbstd_group_size
        self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation="lrelu") if reads_image else None
        self.conv = Conv2dLayer(in_channels + 1, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation="lrelu")
        self.out = FullyConnectedLayer(in_channels, max(cmap_dim, 1))

    def forward(self, x: Tensor | None, img: Tensor, cmap: Tensor | None) -> Tensor:
        """Features [N, C, 4, 4] -> logits [N, 1]. Always in float32."""
        x = minibatch_std(_add_image(self.fromrgb, x, img, torch.float32), self.mbstd_group_size)
        x = self.out(self.fc(self.conv(x).flatten(1)))  # [N, 1], or [N, cmap_dim] with labels
        if cmap is None:
            return x
        return (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)


class Discriminator(DiscriminatorNetwork):
    """Blocks b{img_resolution}, ..., b8 and the epilogue b4; labels enter as a projection of the last features.

    Args:
        c_dim: width of the label; 0 = unconditional.
        img_resolution: a power of two of at least 4.
        img_channels: 3 for RGB.
        architecture: "resnet", "skip" or "orig" (plain).
        channel_base: channels times resolution.
        channel_max: most channels at any resolution.
        num_fp16_res: how many of the highest resolutions compute in float16 (on CUDA).
        conv_clamp: bound of every convolution's output; None = none. 256 keeps float16 from overflowing.
        mbstd_group_size: samples among which the minibatch statistics are taken, at most; where it does
            not divide the batch on a device, the largest smaller number that does.
        mapping_layers: number of layers of the labels' mapping network.

    `init_kwargs` holds these arguments: `Discriminator(**D.init_kwargs)` is a network that takes `D.state_dict()`.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figure 7; labels: Miyato and
    Koyama 2018, "cGANs with Projection Discriminator", with a mapping network in the place of the embedding.
    """

    options: ClassVar[Mapping[str, str]] = {
        "architecture": "arch",
        "channel_base": "cbase",
        "channel_max": "cmax",
        "num_fp16_res": "num_fp16_res",
        "conv_clamp": "conv_clamp",
        "mbstd_group_size": "mbstd_group",
    }
    features = "b4.fc"

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        mbstd_group_size: int = 4,
        mapping_layers: int = 8,
    ) -> None:
        # First statement, so that locals() are the arguments and nothing else.
        init_kwargs = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(
                f"discriminator architecture '{architecture}'; expected one of {', '.join(ARCHITECTURES)}."
            )
        if mbstd_group_size < 1:
            raise UserError(f"--mbstd-group: {mbstd_group_size}; expected at least 1 (1 switches the statistics off).")
        self.init_kwargs = init_kwargs
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        smallest, *larger = block_resolutions(img_resolution)
        self.block_resolutions = larger[::-1]
        in_channels = 0
        for resolution in self.block_resolutions:
            mid_channels = channels_at(resolution, channel_base, channel_max)
            out_channels = channels_at(resolution // 2, channel_base, channel_max)
            dtype = block_dtype(resolution, img_resolution, num_fp16_res)
            block = DiscriminatorBlock(
                in_channels, mid_channels, out_channels, img_channels, architecture, dtype, conv_clamp
            )
            self.add_module(f"b{resolution}", block)
            in_channels = out_channels
        channels = channels_at(smallest, channel_base, channel_max)
        cmap_dim = channels if c_dim > 0 else 0
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, num_layers=mapping_layers, w_avg_beta=None)
        reads_image = architecture == "skip" or not self.block_resolutions
        self.b4 = DiscriminatorEpilogue(
            channels, cmap_dim, smallest, img_channels, reads_image, mbstd_group_size, conv_clamp
        )

    def forward(self, images: Tensor, c: Tensor | None = None, force_fp32: bool = False) -> Tensor:
        """Judge images.

        Args:
            images: [N, img_channels, img_resolution, img_resolution], [-1,1].
            c: [N, c_dim]; may be None if c_dim is 0.
            force_fp32: compute in float32 in every block.

        Returns:
            logits [N, 1], float32; above 0 = real.

        Raises:
            ValueError: images or labels of the wrong shape, or a batch the minibatch statistics cannot split.
        """
        check_shape("the image batch", images, (self.img_channels, self.img_resolution, self.img_resolution))
        c = check_labels(c, self.c_dim, images.shape[0])
        x, img = None, images
        for resolution in self.block_resolutions:
            x, img = self.get_submodule(f"b{resolution}")(x, img, force_fp32)
        return self.b4(x, img, None if c is None else self.mapping(None, c))

    def low_precision_blocks(self) -> list[nn.Module]:
        return low_precision_blocks(self, self.img_resolution, self.init_kwargs["num_fp16_res"])

    def layers_from_the_image(self) -> list[nn.Module]:
        """Those of the blocks, each in the order fromrgb, conv0, conv1, skip, as the official --freezed counts."""
        blocks = [block for block in self.children() if isinstance(block, DiscriminatorBlock)]
        layers = [getattr(block, name, None) for block in blocks for name in ("fromrgb", "conv0", "conv1", "skip")]
        return [layer for layer in layers if layer is not None]

    def batch_note(self, batch: int) -> str:
        most = self.b4.mbstd_group_size
        group = group_size_of(batch, most)
        if group == min(most, batch):
            return ""
        return (
            f"minibatch-std in groups of {group}: {most} (--mbstd-group) does not divide the {batch} images that D "
            "sees at once"
        )
