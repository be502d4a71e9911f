"""What the teachers of this package share: frozen weights, a fingerprint, checked input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from kd_plugin.errors import TeacherError, arg, nearest
from kd_plugin.teachers.protocol import Teacher

__all__ = ["Frozen", "check_images", "fingerprint_of", "freeze", "nearest_file", "scramble"]

M = TypeVar("M", bound=nn.Module)


class Frozen:
    """Copying shares, pickling refuses.

    Training code deep-copies and pickles whatever it holds (EMA copies, snapshots). Weights that never change need
    no second copy, so a copy is the same object; a pickle would put hundreds of MB of someone else's weights in every
    snapshot, so it is an error.
    """

    name: str
    fingerprint: str
    network: Any  # the nn.Module or TorchScript module that embeds
    remark: str = ""  # for the log: what was assumed about it

    def shown(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] as the network sees them, in [-1, 1], for inspection."""
        return images

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TeacherError(
            f"teacher '{self.name}' cannot be pickled: keep its spec and fingerprint, and call load_teacher again"
        )


def freeze(module: M) -> M:
    """Eval mode, and no parameter requires a gradient."""
    for parameter in module.parameters():  # TorchScript modules have no requires_grad_() of their own
        parameter.requires_grad_(False)
    return module.eval()


@torch.no_grad()
def scramble(teacher: Teacher) -> None:
    """Destroy a teacher's knowledge, in place: permute the entries of each weight at random.

    Architecture and magnitude of the weights are unchanged. A gain that it shares is not the teacher's knowledge. It is
    the same every time. In a network without parameters, the buffers are taken for the weights.

    Raises:
        TeacherError: its weights cannot be reached: another class of teacher, or a file that holds them as constants.
    """
    ours = teacher if isinstance(teacher, Frozen) else None
    parameters = [] if ours is None else list(ours.network.parameters()) or _buffers(ours.network)
    if ours is None or not parameters:
        raise TeacherError(
            f"{arg('control', 'scramble')}: the weights of '{teacher.name}' cannot be reached; use another kind of "
            "teacher, or an untrained one"
        )
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    ours.fingerprint = hashlib.sha256(f"scrambled {ours.fingerprint}".encode()).hexdigest()


def _buffers(network: nn.Module) -> list[Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def fingerprint_of(weights: Mapping[str, Tensor], architecture: str = "") -> str:
    """SHA-256 (hex) over names, shapes and float32 values, and what else decides the embeddings.

    The container and the order in it make no difference.
    """
    digest = hashlib.sha256(architecture.encode())
    for name in sorted(weights):
        values = weights[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()


def check_images(images: Tensor, device: torch.device) -> None:
    """Reject anything but [N, 3, H, W] floating point on `device`. The range is not checked: that would sync a GPU."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise TeacherError(
            f"the teacher was given images of shape {list(images.shape)} and {images.dtype}; it takes float "
            "[N, 3, H, W] in [-1, 1] (grey images: images.expand(-1, 3, -1, -1); pixels: pixels / 127.5 - 1)"
        )
    if images.device != device:
        raise TeacherError(
            f"the images are on {images.device} and the teacher is on {device}; call load_teacher(spec, device)"
            " with the images' device"
        )


def nearest_file(path: Path) -> str:
    """Files near a missing one that the user may have meant, in the words of `nearest`."""
    return nearest(path.name, sorted(file.name for file in path.parent.glob(f"*{path.suffix}")))
