"""Convolution whose kernel is scaled by a style, sample by sample: how the latent steers the image."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_utils.ops.conv2d_resample import conv2d_resample

__all__ = ["modulated_conv2d"]


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> Tensor:
    """Convolve sample n with `w[o, i] · s[n, i]`, scaled to unit L2 norm per output channel o if `demodulate`.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], shared by the batch.
        styles: [N, I].
        noise: added to the result, anything that broadcasts to it; None = nothing.
        up: factor of enlargement.
        down: factor of reduction.
        padding: in pixels of the upsampled image.
        resample_filter: low-pass from `setup_filter` for `up` and `down`.
        demodulate: divide by the norm of each sample's kernel, as instance normalisation does in expectation.
        flip_weight: False = convolution, True = correlation.
        fused_modconv: True = one grouped convolution with a kernel per sample; False = one shared kernel, with the
            activations scaled before (styles) and after (demodulation). Equal up to rounding.

    Returns:
        [N, O, H·up/down, W·up/down] for the padding that keeps the size.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", equations 1 and 3; for
    float16, Karras et al. 2020, "Training GANs with Limited Data", appendix on mixed-precision training.
    """
    batch, c_out = x.shape[0], weight.shape[0]
    if demodulate and x.dtype == torch.float16:
        weight, styles = _scaled_for_float16(weight, styles)
    norms = _inverse_norms(weight, styles) if demodulate else None

    if not fused_modconv:
        x = x * styles.to(x.dtype)[:, :, None, None]
        x = conv2d_resample(x, weight.to(x.dtype), resample_filter, up, down, padding, flip_weight=flip_weight)
        if norms is not None:
            norms = norms.to(x.dtype)[:, :, None, None]
            if noise is not None:
                return torch.addcmul(noise.to(x.dtype), x, norms)
            x = x * norms
    else:
        kernels = weight * styles[:, None, :, None, None]  # [N, O, I, k, k]
        if norms is not None:
            kernels = kernels * norms[:, :, None, None, None]
        kernels = kernels.flatten(0, 1).to(x.dtype)  # [N·O, I, k, k]
        x = x.reshape(1, -1, *x.shape[2:])  # the samples become groups of channels
        x = conv2d_resample(x, kernels, resample_filter, up, down, padding, groups=batch, flip_weight=flip_weight)
        x = x.reshape(batch, c_out, *x.shape[2:])
    return x if noise is None else x + noise.to(x.dtype)


def _scaled_for_float16(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scales that keep the convolution's sums below float16's 65504; demodulation cancels them."""
    fan_in = weight[0].numel()
    weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True) * fan_in**0.5)
    return weight, styles / styles.abs().amax(dim=1, keepdim=True)


def _inverse_norms(weight: Tensor, styles: Tensor) -> Tensor:
    """[N, O]: 1 / norm of `w[o, i] · s[n, i]`, the sum over i of s² · (sum over taps of w²): no kernel per sample."""
    return (styles.square() @ weight.square().sum(dim=[2, 3]).T + 1e-8).rsqrt()
