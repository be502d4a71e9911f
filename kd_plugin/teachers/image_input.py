"""The images a teacher can look at, from the images a GAN trains on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from kd_plugin.errors import TeacherError

__all__ = ["as_in_the_release", "rgb"]


def rgb(images: Tensor) -> Tensor:
    """[N, 3, H, W] or grey [N, 1, H, W] in [-1, 1], any float type -> float32 [N, 3, H, W]. Differentiable.

    Raises:
        TeacherError: another shape, or whole numbers (pixels).
    """
    if not images.is_floating_point():
        raise TeacherError(f"the teacher's images are {images.dtype}; expected floating point in [-1, 1]")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise TeacherError(f"the teacher's images have the shape {list(images.shape)}; expected [N, 3, H, W] (RGB)")
    return images.float().expand(-1, 3, -1, -1)


def as_in_the_release(images: Tensor, teacher: Any) -> Tensor:
    """What makes a CLIP see these images as in the authors' release of KD-DLGAN: enlarged to its size by repeating
    pixels, and in [-1, 1] where others normalise.

    The teacher's own normalisation is undone beforehand, so that it has no effect; its resize finds the size it wants.

    Args:
        images: [N, 3, H, W] in [-1, 1].
        teacher: one that tells its `image_size` and its `normalisation`.

    Raises:
        TeacherError: it does not.
    """
    size, normalisation = getattr(teacher, "image_size", None), getattr(teacher, "normalisation", None)
    if size is None or normalisation is None:
        raise TeacherError(
            f"--kd-preprocess=release: teacher '{getattr(teacher, 'name', teacher)}' does not tell its own "
            "preprocessing, so it cannot be replaced; give --kd-preprocess=teacher"
        )
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in normalisation)
    return (functional.interpolate(images, (size, size), mode="nearest") * std + mean) * 2 - 1
