"""From the discriminator's feature to the teacher's width: [N, F] -> [N, E]."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal, spectral_norm

from kd_plugin.errors import KDError, LayerError, arg
from kd_plugin.seeding import seeded
from kd_plugin.student.features import TappedLayer, at_least_float32

__all__ = [
    "IdentityHead",
    "LinearHead",
    "MLPHead",
    "OrthogonalHead",
    "joined_width",
    "make_head",
]


def joined_width(layers: Iterable[TappedLayer]) -> int:
    """F, the number of features of several layers together.

    Raises:
        LayerError: a layer that does not state its number; names it.
    """
    total = 0
    for layer in layers:
        if layer.width is None:
            raise LayerError(
                f"{arg('layer', layer.name)} ({type(layer.module).__name__}) does not state its number of features; "
                "pass width= to attach() (kd_plugin.list_layers(D, images) lists them)"
            )
        total += layer.width
    return total


def _checked(features: Tensor, width: int) -> Tensor:
    features = at_least_float32(features)
    if features.shape[1] != width:
        raise LayerError(
            f"{arg('layer')}: gives {features.shape[1]} features, but the head expects {width}; "
            f"pass width={features.shape[1]} to attach()"
        )
    return features


class IdentityHead(nn.Module):
    """The discriminator's feature unchanged: no parameters, so D itself must match the teacher."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return _checked(features, self.width)  # [N, E]

    def extra_repr(self) -> str:
        return f"width={self.width}"


class LinearHead(nn.Module):
    """One affine map F -> E. Rows start at about unit length."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(teacher, student) / math.sqrt(student))
        self.bias = nn.Parameter(torch.zeros(teacher))

    def forward(self, features: Tensor) -> Tensor:
        features = _checked(features, self.weight.shape[1])
        return functional.linear(features.to(self.weight.dtype), self.weight, self.bias)  # [N, E]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class MLPHead(nn.Module):
    """F -> 1024 -> E, two linear maps under spectral norm without an activation: the head of the authors' release.

    Each map's largest singular value is held at 1 by one power iteration a training step.
    """

    WIDTH = 1024

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.width = student
        self.layers = nn.Sequential(
            spectral_norm(nn.Linear(student, self.WIDTH)), spectral_norm(nn.Linear(self.WIDTH, teacher))
        )

    def forward(self, features: Tensor) -> Tensor:
        features = _checked(features, self.width)
        embeddings: Tensor = self.layers(features.float())  # [N, E]
        return embeddings


class OrthogonalHead(nn.Module):
    """One linear map F -> E without bias whose rows (F >= E) or columns (F < E) stay orthonormal.

    Such a map can turn the student's feature but not bend it to the teacher, so that what is to be matched must be in
    the feature itself.

    Source: Miles et al. 2024, "VkD: Improving Knowledge Distillation using Orthogonal Projections", equation 3.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.width = student
        self.map = orthogonal(nn.Linear(student, teacher, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        features = _checked(features, self.width)
        embeddings: Tensor = self.map(features.float())  # [N, E]
        return embeddings


def make_head(kind: str, student: int, teacher: int, seed: int) -> nn.Module:
    """
    Args:
        kind: `identity`, `linear`, `mlp`, `orthogonal`, or `auto` (identity if the widths agree, else linear).
        student: F, the discriminator's width.
        teacher: E, the teacher's width.
        seed: of the head's parameters. The global random state stays untouched, so that distillation with weight 0
            leaves a training run as it was.

    Raises:
        KDError: `identity` for two widths, or an unknown kind.
    """
    if kind == "identity" and student != teacher:
        raise KDError(
            f"{arg('head', 'identity')} needs equal widths, but the layer gives {student} features and the teacher "
            f"{teacher}; use {arg('head', 'linear')}"
        )
    if kind == "identity" or (kind == "auto" and student == teacher):
        return IdentityHead(teacher)
    kinds = {"auto": LinearHead, "linear": LinearHead, "mlp": MLPHead, "orthogonal": OrthogonalHead}
    if kind not in kinds:
        raise KDError(f"{arg('head', kind)} is unknown")
    with seeded(seed):
        return kinds[kind](student, teacher)
