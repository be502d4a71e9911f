"""Teachers: frozen image-text models behind one protocol, found by the spec that `--kd` takes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kd_plugin.errors import TeacherError, nearest
from kd_plugin.registry import Registry
from kd_plugin.teachers.base import Teacher

__all__ = ["TEACHERS", "Loader", "Teacher", "load_teacher"]

# What stands after 'scheme:' in the spec (empty where nothing does), the device and the precision -> the teacher.
Loader = Callable[[str, torch.device, str], Teacher]

# Loaders import what they need when they run, so that one teacher's dependencies do not burden another.
TEACHERS: Registry[Loader] = Registry("teacher")

_FORMS = "clip, clip:ViT-B/32, clip:FILE.pt, demo, script:IMAGE_TOWER.pt+TEXTS.npz"
_DEFAULT_CLIP = "ViT-B/32"


def load_teacher(spec: str, device: torch.device | str = "cpu", precision: str = "auto") -> Teacher:
    """The teacher that a spec names, frozen, on `device`.

    Args:
        spec: `clip` (= `clip:ViT-B/32`), `clip:` and a name of OpenAI's or a weights file, `demo` (tiny, comes with the
            plug-in), or `script:IMAGE_TOWER.pt+TEXTS.npz`.
        device: where it lives; the images must be there too.
        precision: `fp32`, `bf16`, or `auto` (bf16 on CUDA, on a CPU where it is measured to be faster), for the
            teachers of OpenAI's architecture. Embeddings come in float32 in any case.

    Raises:
        TeacherError: an unknown spec, or a file that cannot be found, fetched, read or used.
    """
    scheme, _, rest = spec.partition(":")
    if scheme not in TEACHERS:
        raise TeacherError(
            f"--kd={spec}: there is no teacher '{scheme}'{nearest(scheme, TEACHERS)}; the forms are: {_FORMS}"
        )
    return TEACHERS[scheme](rest, torch.device(device), precision)


@TEACHERS.register("clip")
def _clip(model: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers.clip_files import find_weights, read_weights
    from kd_plugin.teachers.openai_clip import OpenAIClip

    model = model or _DEFAULT_CLIP
    weights = read_weights(find_weights(model))
    return OpenAIClip.from_state_dict(weights.tensors, f"clip:{model}", device, weights.activation, precision)


@TEACHERS.register("script")
def _script(files: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers.script import ScriptTeacher

    if not files:
        raise TeacherError("--kd=script: names no file; give script:IMAGE_TOWER.pt+TEXTS.npz")
    return ScriptTeacher(files, device)


@TEACHERS.register("demo")
def _demo(nothing: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers import demo

    if nothing:
        raise TeacherError(f"--kd=demo:{nothing}: the demo teacher has no variants; give --kd=demo")
    return demo.load(device)
