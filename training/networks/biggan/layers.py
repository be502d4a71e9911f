"""The layers both networks are made of: spectral normalisation, and batch norm with a gain and bias per class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "BatchNorm",
    "ClassBatchNorm",
    "SpectralConv2d",
    "SpectralEmbedding",
    "SpectralLinear",
    "StoredStatistics",
    "block_count",
    "downsample",
]

INIT_STD = 0.02  # of all weights (the authors' "N02")
_EPSILON = 1e-8  # of a singular vector's length


class SpectralLayer(nn.Module):
    """A weight that is divided by its largest singular value, which one power iteration per training call follows.

    The weight [out, ...] counts as the matrix [out, rest]. `u0` [1, out] is its left singular vector; it moves in
    training mode only, at every call, as in the authors' code. Gradients pass the division.

    Source: Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", algorithm 1.
    """

    u0: Tensor
    sv0: Tensor

    def __init__(self, shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * INIT_STD)
        bound = 1 / math.sqrt(math.prod(shape[1:]))  # PyTorch's for a bias, which the authors leave as it is
        self.bias = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound)) if bias else None
        self.register_buffer("u0", torch.randn(1, shape[0]))
        self.register_buffer("sv0", torch.ones(1))  # the last largest singular value, for the reader

    def normalized_weight(self) -> Tensor:
        """The weight / its largest singular value. Moves `u0` in training mode."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=_EPSILON)
            u = F.normalize(v @ matrix.T, eps=_EPSILON)
        largest = (v @ matrix.T @ u.T).reshape([])
        if self.training:
            with torch.no_grad():
                self.u0.copy_(u)
                self.sv0.fill_(largest)
        return self.weight / largest


class SpectralConv2d(SpectralLayer):
    """[N, in, H, W] -> [N, out, H, W]; `kernel_size` is odd."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.weight.shape[2] // 2)


class SpectralLinear(SpectralLayer):
    """[N, in] -> [N, out]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__((out_features, in_features), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized_weight(), self.bias)


class SpectralEmbedding(SpectralLayer):
    """Labels [N, c_dim], one-hot for classes -> [N, width]."""

    def __init__(self, c_dim: int, width: int) -> None:
        super().__init__((c_dim, width), bias=False)

    def forward(self, c: Tensor) -> Tensor:
        return c @ self.normalized_weight()


class StoredStatistics(nn.Module):
    """Batch norm's statistics. In training mode those of the batch are used, and the stored ones move by a tenth; in
    eval mode the stored ones.
    """

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normalized(self, x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """[N, C, H, W], then times the gain [C], plus the bias [C]."""
        kept = (self.stored_mean, self.stored_var)
        return F.batch_norm(x, *kept, gain, bias, self.training, momentum=0.1, eps=1e-5)


class BatchNorm(StoredStatistics):
    """Batch norm with a gain and bias for each channel. [N, C, H, W] -> [N, C, H, W]; labels are ignored."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.normalized(x, self.gain, self.bias)


class ClassBatchNorm(StoredStatistics):
    """Batch norm whose gain (1 + a row of a table) and bias belong to the class.

    [N, C, H, W] and labels [N, c_dim], one-hot for classes -> [N, C, H, W].
    """

    def __init__(self, channels: int, c_dim: int) -> None:
        super().__init__(channels)
        self.gain, self.bias = nn.Embedding(c_dim, channels), nn.Embedding(c_dim, channels)
        for table in (self.gain, self.bias):
            nn.init.normal_(table.weight, 0, INIT_STD)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gain, bias = c @ self.gain.weight, c @ self.bias.weight
        return torch.addcmul(bias[:, :, None, None], self.normalized(x), 1 + gain[:, :, None, None])


def block_count(img_resolution: int) -> int:
    """Doublings from 4x4 to the image."""
    return img_resolution.bit_length() - 3


def downsample(x: Tensor) -> Tensor:
    """The means of 2x2 pixels."""
    return F.avg_pool2d(x, 2)
