"""Teachers: frozen image-text models behind one protocol, found by the spec that `--kd` takes."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from kd_plugin.errors import TeacherError, arg, nearest
from kd_plugin.file_kinds import what_it_is
from kd_plugin.registry import Registry
from kd_plugin.teachers import module
from kd_plugin.teachers.base import scramble
from kd_plugin.teachers.protocol import HasPrecision, Teacher
from kd_plugin.user_code import is_attribute_spec

__all__ = ["TEACHERS", "Loader", "Teacher", "load_teacher", "load_teachers", "split_spec"]

# What stands after 'scheme:' in the spec (empty where nothing does), the device and the precision -> the teacher.
Loader = Callable[[str, torch.device, str], Teacher]

# Loaders import what they need when they run, so that one teacher's dependencies do not burden another.
TEACHERS: Registry[Loader] = Registry("teacher")

_FORMS = (
    "clip, clip:ViT-B/32, clip:FILE.pt, open_clip:ARCH/TAG, hf:ORG/MODEL, demo, script:IMAGE_TOWER.pt+TEXTS.npz, "
    "MODULE:ATTRIBUTE (runs your code), and several joined by +"
)
_DEFAULT_CLIP = "ViT-B/32"


def load_teacher(spec: str, device: torch.device | str = "cpu", precision: str = "auto") -> Teacher:
    """The teacher that a spec names, frozen, on `device`.

    Args:
        spec: `clip` (= `clip:ViT-B/32`), `clip:` and a name of OpenAI's or a weights file, `open_clip:ARCH/TAG`,
            `hf:ORG/MODEL`, `demo` (tiny, comes with the plug-in), `script:IMAGE_TOWER.pt+TEXTS.npz`, or
            `MODULE:ATTRIBUTE`, a teacher of the user's own: this runs the user's code.
        device: where it lives; the images must be there too.
        precision: `fp32`, `bf16`, or `auto` (bf16 on CUDA, on a CPU where it is measured to be faster), for the
            teachers that are networks of known packages. Embeddings come in float32 in any case.

    Raises:
        TeacherError: an unknown spec, or a file that cannot be found, fetched, read or used.
    """
    scheme, _, rest = spec.partition(":")
    if scheme not in TEACHERS:
        if is_attribute_spec(spec):
            user_teacher: Teacher = module.load(spec, torch.device(device))
            return user_teacher
        raise TeacherError(
            f"{arg('teacher', spec)}: unknown teacher '{scheme}'{nearest(scheme, TEACHERS)}; the forms are: {_FORMS}"
        )
    return TEACHERS[scheme](rest, torch.device(device), precision)


def load_teachers(
    spec: str, device: torch.device | str = "cpu", precision: str = "auto", control: str = "none"
) -> list[tuple[float, Teacher]]:
    """The teachers that a spec names, with their weights: `clip+hf:facebook/dinov2-small`, `clip+0.5*hf:...`.

    The precision that `auto` selects for the first teacher with a choice is used for all. With the control `scramble`
    they know nothing.

    Raises:
        TeacherError: as load_teacher; or a weight that is not above 0.
    """
    teachers: list[tuple[float, Teacher]] = []
    for weight, member in split_spec(spec):
        teacher = load_teacher(member, device, precision)
        precision = teacher.precision if isinstance(teacher, HasPrecision) else precision
        if control == "scramble":
            scramble(teacher)
        teachers.append((weight, teacher))
    return teachers


def split_spec(spec: str) -> list[tuple[float, str]]:
    """'clip+0.5*hf:x' -> [(1, 'clip'), (0.5, 'hf:x')]. A + within file names stays: what follows must be a spec itself.

    Raises:
        TeacherError: a weight that is not above 0.
    """
    parts: list[tuple[float, str]] = []
    for part in spec.split("+"):
        weight, name = _WEIGHTED.fullmatch(part).groups()  # type: ignore[union-attr]  # it matches everything
        if parts and name.partition(":")[0] not in TEACHERS and not is_attribute_spec(name):
            parts[-1] = (parts[-1][0], f"{parts[-1][1]}+{part}")
            continue
        if weight is not None and not float(weight) > 0:
            raise TeacherError(f"{arg('teacher', spec)}: the weight {weight} of '{name}' must be above 0")
        parts.append((1.0 if weight is None else float(weight), name))
    return parts


_WEIGHTED = re.compile(r"(?:(\d*\.?\d+)\*)?(.*)", re.DOTALL)


@TEACHERS.register("clip")
def _clip(model: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers.clip_files import find_weights, read_weights
    from kd_plugin.teachers.openai_clip import OpenAIClip, missing_names

    model = model or _DEFAULT_CLIP
    path = find_weights(model)
    weights = read_weights(path)
    is_another = bool(missing_names(weights.tensors))
    try:
        return OpenAIClip.from_state_dict(
            weights.tensors, f"clip:{model}", device, weights.activation, precision, give_away=True
        )
    except TeacherError as error:
        if not is_another:
            raise
        raise TeacherError(f"{error}{what_it_is(path)}") from error


@TEACHERS.register("open_clip")
def _open_clip(model: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers import open_clip

    return open_clip.load(model, device, precision)


@TEACHERS.register("hf")
def _hf(model: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers import hf

    return hf.load(model, device, precision)


@TEACHERS.register("script")
def _script(files: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers.script import ScriptTeacher

    if not files:
        raise TeacherError(f"{arg('teacher', 'script')}: names no file; give script:IMAGE_TOWER.pt+TEXTS.npz")
    return ScriptTeacher(files, device)


@TEACHERS.register("demo")
def _demo(nothing: str, device: torch.device, precision: str) -> Teacher:
    from kd_plugin.teachers import demo

    if nothing:
        raise TeacherError(
            f"{arg('teacher', f'demo:{nothing}')}: the demo teacher has no variants; give {arg('teacher', 'demo')}"
        )
    return demo.load(device)
