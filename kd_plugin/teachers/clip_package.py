"""OpenAI's network and tokenizer, from two files of the installed `openai-clip` package.

`import clip` itself would fail on today's machines: its `__init__` needs pkg_resources (gone from setuptools) and
torchvision. The network (`model.py`) and the tokenizer (`simple_tokenizer.py`) need neither, so these two files are
loaded by their location, and the package's `__init__` never runs.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import Tensor, nn

from kd_plugin.errors import TeacherError

__all__ = ["build_model", "openai_tokenizer"]

_INSTALL = "pip install openai-clip"


def _package_folder() -> Path:
    try:
        spec = importlib.util.find_spec("clip")  # finds a top-level package without running it
    except ValueError:  # someone put a module without a spec into sys.modules
        spec = None
    if spec is None:
        raise TeacherError(f"the teacher needs OpenAI's CLIP package, which is not installed: {_INSTALL}")
    for folder in map(Path, spec.submodule_search_locations or ()):
        if (folder / "model.py").is_file() and (folder / "simple_tokenizer.py").is_file():
            return folder
    raise TeacherError(
        f"the teacher needs OpenAI's CLIP package, but the 'clip' that Python finds ({spec.origin}) is another one: "
        f"rename or uninstall it, then {_INSTALL}"
    )


@functools.cache
def _load(stem: str) -> ModuleType:
    path = _package_folder() / f"{stem}.py"
    spec = importlib.util.spec_from_file_location(f"kd_plugin.teachers._openai_{stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise TeacherError(f"OpenAI's CLIP package lacks something it needs ({error}): {_INSTALL}") from error
    return module


def build_model(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """OpenAI's CLIP network of the architecture that the shapes in `state_dict` define, in mixed fp16 and fp32."""
    return cast(nn.Module, _load("model").build_model(dict(state_dict)))  # a copy: it deletes keys


@functools.cache
def openai_tokenizer() -> Callable[[str], list[int]]:
    """OpenAI's byte-pair tokenizer: a text to its token ids, start and end marks included. Built once (0.2 s)."""
    bpe = _load("simple_tokenizer").SimpleTokenizer()
    start, end = bpe.encoder["<|startoftext|>"], bpe.encoder["<|endoftext|>"]

    def tokenize(text: str) -> list[int]:
        return [start, *bpe.encode(text), end]

    return tokenize
