"""Converting a GAN's images to the images a teacher takes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from kd_plugin.errors import TeacherError, arg
from kd_plugin.teachers.protocol import HasPreprocessing, Teacher

__all__ = ["as_in_the_release", "rgb"]


def rgb(images: Tensor) -> Tensor:
    """[N, 3, H, W] or grey [N, 1, H, W] in [-1, 1], any float type -> float32 [N, 3, H, W]. Differentiable.

    Raises:
        TeacherError: another shape, or whole numbers (pixels).
    """
    if not images.is_floating_point():
        raise TeacherError(
            f"the teacher's images are {images.dtype}; expected floating point in [-1, 1] (attach() takes image_range=)"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise TeacherError(f"the teacher's images have the shape {list(images.shape)}; expected [N, 3, H, W] (RGB)")
    return images.float().expand(-1, 3, -1, -1)


def as_in_the_release(images: Tensor, teacher: Teacher) -> Tensor:
    """Makes CLIP see images as in the authors' release of KD-DLGAN.

    They are enlarged by repeating pixels, and in [-1, 1] instead of normalised.
    The teacher's own normalisation is inverted beforehand, so that it has no effect; its resize is given the size it
    wants.

    Args:
        images: [N, 3, H, W] in [-1, 1].
        teacher: one that states its preprocessing (HasPreprocessing).

    Raises:
        TeacherError: it does not.
    """
    if not isinstance(teacher, HasPreprocessing):
        raise TeacherError(
            f"{arg('preprocess', 'release')}: teacher '{teacher.name}' does not state its own preprocessing, so it "
            f"cannot be replaced; use {arg('preprocess', 'teacher')}"
        )
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in teacher.normalisation)
    size = (teacher.image_size, teacher.image_size)
    return (functional.interpolate(images, size, mode="nearest") * std + mean) * 2 - 1
