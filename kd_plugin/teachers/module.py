"""A teacher of the user's own: `--kd=package.module:attribute`. Naming one means running that code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

import torch

from kd_plugin.errors import TeacherError, first_line, nearest

__all__ = ["is_module_spec", "load", "load_attribute"]


def is_module_spec(spec: str) -> bool:
    """Whether it has the form MODULE:ATTRIBUTE and there is such a module, here or in the working directory."""
    module, _, attribute = spec.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        with _working_directory():
            return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def load_attribute(spec: str, flag: str = "--kd") -> Any:
    """The attribute of MODULE:ATTRIBUTE.

    Raises:
        TeacherError: importing the module fails, or there is no such attribute.
    """
    module_name, _, attribute = spec.partition(":")
    try:
        with _working_directory():
            module = importlib.import_module(module_name)
    except Exception as error:  # the user's code: anything
        raise TeacherError(f"{flag}={spec}: importing '{module_name}' failed ({first_line(error)})") from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise TeacherError(f"{flag}={spec}: '{module_name}' has no '{attribute}'{nearest(attribute, known)}")
    return getattr(module, attribute)


def load(spec: str, device: torch.device) -> Any:
    """The teacher that the attribute is, or gives when it is called with the device.

    Raises:
        TeacherError: the module or the call fails, or there is no such attribute.
    """
    found = load_attribute(spec)
    if hasattr(found, "embed_images") and not isinstance(found, type):
        return found
    if not callable(found):
        raise TeacherError(
            f"--kd={spec}: is a {type(found).__name__}; give a teacher (see kd_plugin.Teacher), or a function that "
            "makes one for a device"
        )
    try:
        return found(device)
    except Exception as error:
        raise TeacherError(f"--kd={spec}: calling it with the device failed ({first_line(error)})") from error


class _working_directory:
    """In this block modules are also looked for in the working directory, as `python -m` does."""

    def __enter__(self) -> None:
        self._path = os.getcwd()
        sys.path.append(self._path)

    def __exit__(self, *error: object) -> None:
        sys.path.remove(self._path)
