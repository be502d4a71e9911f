"""The operators StyleGAN2 is made of, each with a readable torch reference that is its specification."""

from torch_utils.ops.bias_act import ACTIVATIONS, Activation, bias_act
from torch_utils.ops.conv2d import conv2d_resample
from torch_utils.ops.grid_sample import grid_sample
from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "filter2d",
    "grid_sample",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
