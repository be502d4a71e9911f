"""Packages that official code imports and these tests neither have nor need: every name in them is a mock."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

PACKAGES = ("torchvision", "animal_hash", "h5py", "kornia", "tabulate", "colorama")


class _Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module: types.ModuleType) -> None: ...


def provide_packages() -> None:
    """In this process; where timm is, its networks get no pretrained weights."""
    sys.meta_path.append(_Mocks())
    if importlib.util.find_spec("timm"):
        timm: Any = importlib.import_module("timm")
        create = timm.create_model
        timm.create_model = lambda name, pretrained=False, **options: create(name, pretrained=False, **options)
