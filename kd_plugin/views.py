"""The images a teacher can look at, from the images a GAN trains on."""

from __future__ import annotations

from torch import Tensor

from kd_plugin.errors import TeacherError

__all__ = ["rgb"]


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
