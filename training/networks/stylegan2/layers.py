"""The layers both networks are made of: equalised linear and convolution, and what sets a block's width and type."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dnnlib.errors import UserError
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter

__all__ = [
    "RESAMPLE_TAPS",
    "Conv2dLayer",
    "FullyConnectedLayer",
    "block_dtype",
    "block_resolutions",
    "channels_at",
    "compute_dtype",
    "low_precision_blocks",
    "normalize_2nd_moment",
    "scaled_bias_act",
]

RESAMPLE_TAPS = (1, 3, 3, 1)  # the binomial low-pass of every change of resolution


class FullyConnectedLayer(nn.Module):
    """`act(x @ W' + b)` with equalised learning rate: the stored weight has unit variance, its scale is applied here.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        activation: a name in `torch_utils.ops.ACTIVATIONS`.
        lr_multiplier: how much slower than the others this layer learns (its stored weight is that much larger).
        bias_init: what the bias starts at.

    Source: Karras et al. 2018, "Progressive Growing of GANs", section 4.1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:  # [N, in_features] -> [N, out_features]
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if self.bias_gain != 1:
            bias = bias * self.bias_gain
        if self.activation == "linear":
            return torch.addmm(bias, x, weight.T, alpha=self.weight_gain)
        return bias_act(x @ weight.T, bias, act=self.activation, scale=self.weight_gain)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, activation={self.activation}"


class Conv2dLayer(nn.Module):
    """Convolution with equalised learning rate, bias and activation; optionally halves the resolution.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: odd.
        bias: whether to learn a bias.
        activation: a name in `torch_utils.ops.ACTIVATIONS`.
        down: factor of reduction, through the low-pass `RESAMPLE_TAPS`.
        conv_clamp: the output is held within ±conv_clamp (times `gain`); None = not clamped.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        down: int = 1,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = down
        self.conv_clamp = conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        # Unused where down is 1, but official snapshots have it in every layer.
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:  # [N, C_in, H, W] -> [N, C_out, H/down, W/down]
        # The scale belongs to the weight, but costs less on the way through the activation. float16 could overflow.
        scale = 1.0 if x.dtype == torch.float16 else self.weight_gain
        weight = self.weight.to(x.dtype) if scale != 1 else (self.weight * self.weight_gain).to(x.dtype)
        padding = self.weight.shape[-1] // 2
        x = conv2d_resample(x, weight, self.resample_filter, down=self.down, padding=padding)
        return scaled_bias_act(x, self.bias, self.activation, gain, self.conv_clamp, scale)

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, {kernel_size}, activation={self.activation}, down={self.down}"


def scaled_bias_act(
    x: Tensor, bias: Tensor | None, activation: str, gain: float, clamp: float | None, scale: float = 1.0
) -> Tensor:
    """The tail of a convolution: `gain` scales the activation's own gain and the clamp alike."""
    return bias_act(
        x,
        bias,
        act=activation,
        gain=ACTIVATIONS[activation].gain * gain,
        clamp=None if clamp is None else clamp * gain,
        scale=scale,
    )


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Scale `x` so that its mean square along `dim` is 1."""
    return x * (x.square().mean(dim, keepdim=True) + eps).rsqrt()


def block_resolutions(img_resolution: int) -> list[int]:
    """[4, 8, ..., img_resolution].

    Raises:
        UserError: not a power of two of at least 4.
    """
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise UserError(
            f"--resolution: {img_resolution} is not a power of two of at least 4; give 4, 8, 16, ..., 256, 512 or 1024."
        )
    return [2**i for i in range(2, img_resolution.bit_length())]


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Width of the feature maps at a resolution: doubled as the resolution is halved, up to `channel_max`."""
    channels = min(channel_base // resolution, channel_max)
    if channels < 1:
        raise UserError(
            f"--cbase={channel_base} and --cmax={channel_max} leave no channels at {resolution} pixels; "
            f"expected at least --cbase={resolution} and --cmax=1."
        )
    return channels


def block_dtype(resolution: int, img_resolution: int, num_fp16_res: int) -> torch.dtype:
    """float16 for the `num_fp16_res` highest resolutions, but never below 8 pixels; float32 for the others.

    Source: Karras et al. 2020, "Training GANs with Limited Data", appendix on mixed-precision training.
    """
    lowest = max(2 * img_resolution >> num_fp16_res, 8)
    return torch.float16 if resolution >= lowest else torch.float32


def compute_dtype(wanted: torch.dtype, device: torch.device, force_fp32: bool) -> torch.dtype:
    """The type a block that wants `wanted` computes in on `device`: float16 only where it is fast, on CUDA."""
    if force_fp32 or (wanted == torch.float16 and device.type != "cuda"):
        return torch.float32
    return wanted


def low_precision_blocks(network: nn.Module, img_resolution: int, num_fp16_res: int) -> list[nn.Module]:
    """The blocks of a network's `num_fp16_res` highest resolutions, whatever they compute in now."""
    low = {
        f"b{side}"
        for side in block_resolutions(img_resolution)
        if block_dtype(side, img_resolution, num_fp16_res) == torch.float16
    }
    return [m for name, m in network.named_modules() if name.rpartition(".")[2] in low and hasattr(m, "dtype")]
