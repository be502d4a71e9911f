"""A user's own teacher: `--kd=MODULE:ATTRIBUTE`. This runs the user's code."""

from __future__ import annotations

from typing import Any

import torch

from kd_plugin.errors import KDError, TeacherError, arg, first_line
from kd_plugin.user_code import import_attribute

__all__ = ["load"]


def load(spec: str, device: torch.device) -> Any:
    """The teacher that the attribute is, or returns when it is called with the device.

    Raises:
        TeacherError: the module or the call fails, or there is no such attribute.
    """
    given = arg("teacher", spec)
    try:
        attribute = import_attribute(spec, given)
    except KDError as error:
        raise TeacherError(str(error)) from error
    if hasattr(attribute, "embed_images") and not isinstance(attribute, type):
        return attribute
    if not callable(attribute):
        raise TeacherError(
            f"{given}: is a {type(attribute).__name__}; give a teacher (see kd_plugin.Teacher), or a function that "
            "makes one for a device"
        )
    try:
        return attribute(device)
    except Exception as error:
        raise TeacherError(f"{given}: calling it with the device failed ({first_line(error)})") from error
