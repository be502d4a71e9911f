"""w to an image: the StyleGAN2 synthesis network with skip connections."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.networks.shapes import check_shape
from training.networks.stylegan2.layers import (
    RESAMPLE_TAPS,
    FullyConnectedLayer,
    block_dtype,
    block_resolutions,
    channels_at,
    compute_dtype,
    scaled_bias_act,
)
from training.networks.stylegan2.modulation import modulated_conv2d

__all__ = ["NOISE_MODES", "SynthesisNetwork"]

NOISE_MODES = ("random", "const", "none")


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, per-pixel noise, bias and leaky ReLU; `up=2` doubles the resolution."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        up: int,
        conv_clamp: float | None,
        use_noise: bool,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.conv_clamp = conv_clamp
        self.use_noise = use_noise
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))  # demodulation sets its scale
        if use_noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str, fused_modconv: bool) -> Tensor:
        noise = None
        if self.use_noise and noise_mode == "random":
            noise = torch.randn(x.shape[0], 1, self.resolution, self.resolution, device=x.device)
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=None if noise is None else noise * self.noise_strength,
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,  # as published: the upsampling kernels are stored reversed
            fused_modconv=fused_modconv,
        )
        return scaled_bias_act(x, self.bias, "lrelu", 1, self.conv_clamp)


class ToRGBLayer(nn.Module):
    """A modulated 1x1 convolution to image channels. Not demodulated, so that a style can set the contrast."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor, fused_modconv: bool) -> Tensor:
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, demodulate=False, fused_modconv=fused_modconv)
        return scaled_bias_act(x, self.bias, "linear", 1, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """All layers of one resolution: from a constant (the first block) or the block below, adding to the image."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        dtype: torch.dtype,
        conv_clamp: float | None,
        use_noise: bool,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS))
        self.num_conv = 1
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, 2, conv_clamp, use_noise)
            self.num_conv = 2
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, 1, conv_clamp, use_noise)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        noise_mode: str,
        force_fp32: bool,
        fused_modconv: bool,
    ) -> tuple[Tensor, Tensor]:
        """(features, image) of half the resolution, None for the first block -> those of this resolution.

        `ws` is [N, num_conv + 1, w_dim]: one w for each convolution, the last for the image.
        """
        dtype = compute_dtype(self.dtype, ws.device, force_fp32)
        *w_conv, w_rgb = ws.unbind(dim=1)
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), w_conv[0], noise_mode, fused_modconv)
        x = self.conv1(x, w_conv[-1], noise_mode, fused_modconv)
        rgb = self.torgb(x, w_rgb, fused_modconv).to(torch.float32)  # the image adds up in float32 in every block
        return x, rgb if img is None else upsample2d(img, self.resample_filter) + rgb


class SynthesisNetwork(nn.Module):
    """Blocks b4, b8, ... up to the image's resolution.

    Args:
        w_dim: width of w.
        img_resolution: a power of two of at least 4.
        img_channels: 3 for RGB.
        channel_base: channels times resolution.
        channel_max: most channels at any resolution.
        num_fp16_res: how many of the highest resolutions compute in float16 (on CUDA).
        conv_clamp: bound of every convolution's output; None = none. 256 keeps float16 from overflowing.
        use_noise: whether the layers have noise inputs.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figures 2 and 7.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        use_noise: bool = True,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.block_resolutions = block_resolutions(img_resolution)
        self.num_ws = 1  # the last block's image
        in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = channels_at(resolution, channel_base, channel_max)
            dtype = block_dtype(resolution, img_resolution, num_fp16_res)
            block = SynthesisBlock(
                in_channels, out_channels, w_dim, resolution, img_channels, dtype, conv_clamp, use_noise
            )
            self.add_module(f"b{resolution}", block)
            self.num_ws += block.num_conv
            in_channels = out_channels

    def forward(
        self, ws: Tensor, noise_mode: str = "random", force_fp32: bool = False, fused_modconv: bool | None = None
    ) -> Tensor:
        """Draw the images.

        Args:
            ws: [N, num_ws, w_dim].
            noise_mode: "random" (new for every image), "const" (the network's own, the same for all) or "none".
            force_fp32: compute in float32 in every block.
            fused_modconv: see `modulated_conv2d`; None = in eval mode only. In training, unfused is faster: by 10% in
                a generator step and 35% in a path length step, at 64 pixels on two CPU cores.

        Returns:
            images [N, img_channels, img_resolution, img_resolution], float32, about [-1,1] but not clamped.

        Raises:
            ValueError: unknown noise mode, or `ws` of the wrong shape.
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"--noise-mode: '{noise_mode}' is unknown; expected one of {', '.join(NOISE_MODES)}.")
        check_shape("ws", ws, (self.num_ws, self.w_dim))
        fused = not self.training if fused_modconv is None else fused_modconv
        ws = ws.to(torch.float32)
        x: Tensor | None = None
        img: Tensor | None = None
        first = 0
        for resolution in self.block_resolutions:
            block: Any = self.get_submodule(f"b{resolution}")
            # A block's image shares its w with the first convolution of the next block.
            x, img = block(x, img, ws[:, first : first + block.num_conv + 1], noise_mode, force_fp32, fused)
            first += block.num_conv
        assert img is not None
        return img
