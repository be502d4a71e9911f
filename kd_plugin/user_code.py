"""Importing the user's code: a teacher as MODULE:ATTRIBUTE, or a module that registers terms."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from kd_plugin.errors import KDError, first_line, nearest

__all__ = ["import_attribute", "import_code", "is_attribute_spec"]


def is_attribute_spec(spec: str) -> bool:
    """Whether it has the form MODULE:ATTRIBUTE and such a module exists, here or in the working directory."""
    module, _, attribute = spec.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        with _working_directory():
            return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
    except Exception:  # of the user's package, which is imported on the way: there is one, and import_code reports it
        return True


def import_attribute(spec: str, given: str) -> Any:
    """The attribute of MODULE:ATTRIBUTE.

    Args:
        spec: MODULE:ATTRIBUTE.
        given: how the user wrote it, for the messages.

    Raises:
        KDError: importing the module fails, or it has no such attribute.
    """
    module_name, _, attribute = spec.partition(":")
    module = import_code(module_name, given)
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise KDError(f"{given}: '{module_name}' has no '{attribute}'{nearest(attribute, known)}")
    return getattr(module, attribute)


def import_code(spec: str, given: str) -> ModuleType:
    """Import a module, or a file ending in .py, once per process.

    Args:
        spec: MODULE (also of the working directory) or FILE.py.
        given: how the user wrote it, for the messages.

    Raises:
        KDError: importing it fails.
    """
    try:
        if not spec.endswith(".py"):
            with _working_directory():
                return importlib.import_module(spec)
        name = "kd_plugin_user_code_" + re.sub(r"\W", "_", str(Path(spec).resolve()))  # two files may share a stem
        return sys.modules.get(name) or _import_file(name, spec)
    except Exception as error:  # the user's code: anything
        raise KDError(f"{given}: importing '{spec}' failed ({first_line(error)})") from error


def _import_file(name: str, path: str) -> ModuleType:
    spec_found = importlib.util.spec_from_file_location(name, path)
    assert spec_found is not None
    assert spec_found.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec_found)  # first: dataclasses look their module up
    try:
        spec_found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _working_directory() -> Iterator[None]:
    """In this block modules are also looked up in the working directory, as with `python -m`."""
    path = os.getcwd()
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)
