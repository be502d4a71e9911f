"""Images to distil on that nobody can learn by heart: mixtures of the few real ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mixtures"]


def mixtures(images: Tensor) -> Tensor:
    """Each image blended with the next one of its batch: share u of it, u uniform in [0, 1), drawn anew every time.

    Source: "Knowledge distillation: A good teacher is patient and consistent" (Beyer et al., CVPR 2022), where teacher
    and student see the same aggressive mixup, so that a student learns the teacher's function, not its answers to the
    training images. Differs from it in: the partner is the neighbour in a batch that is random already.

    Args:
        images: [N, C, H, W], N at least 2 or the image is its own partner.

    Returns:
        [N, C, H, W], of the same range.
    """
    share = torch.rand([len(images), 1, 1, 1], device=images.device)
    return torch.lerp(images.roll(1, dims=0), images, share.to(images))
