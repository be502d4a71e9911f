"""What official checkouts need to run on the Python and torch of today.

Nothing is written to disk: modules and classes are completed in memory.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils import cpp_extension
from torch.utils.data import Sampler

from kd_plugin.errors import KDError, nearest

__all__ = ["REPAIRS", "Repair", "mend"]

_IDLE = 900  # seconds without a change: longer than one file takes to compile


@dataclass(frozen=True)
class Repair:
    """
    name:   as `--without` takes it.
    what:   one line for the log.
    needed: whether it fails here; tried wherever one process can try it.
    apply:  mends it in this process.
    """

    name: str
    what: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


def mend(without: Collection[str] = ()) -> list[Repair]:
    """Apply those that are needed; returns them.

    Args:
        without: names of repairs to leave out.

    Raises:
        KDError: an unknown name.
    """
    names = [repair.name for repair in REPAIRS]
    for name in without:
        if name not in names:
            raise KDError(f"--without={name} is not a repair{nearest(name, names)}")
    needed = [repair for repair in REPAIRS if repair.name not in without and repair.needed()]
    for repair in needed:
        repair.apply()
    return needed


def _sampler_refuses() -> bool:
    try:
        Sampler([0])  # type: ignore[call-arg]
    except TypeError:
        return True
    return False


def _let_samplers_take_a_dataset() -> None:
    def __init__(self: Any, *_arguments: Any, **_keywords: Any) -> None:
        pass

    Sampler.__init__ = __init__  # type: ignore[method-assign]


def _is_missing(module: str) -> Callable[[], bool]:
    return lambda: module not in sys.modules and importlib.util.find_spec(module) is None


def _provide_pkg_resources() -> None:
    module = types.ModuleType("pkg_resources")
    module.parse_version = _numbers_of  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = module


def _numbers_of(version: str) -> tuple[int, ...]:
    """Of a version, to compare with others: '1.12.0a0+cu116' -> (1, 12, 0)."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _provide_distutils() -> None:
    package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
    util.strtobool = _strtobool  # type: ignore[attr-defined]
    package.util = util  # type: ignore[attr-defined]
    sys.modules["distutils"], sys.modules["distutils.util"] = package, util


def _strtobool(value: str) -> int:
    if value.lower() in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if value.lower() in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"invalid truth value {value!r}")


def _adam_refuses_mixed_betas() -> bool:
    try:
        torch.optim.Adam([torch.zeros(1, requires_grad=True)], betas=(0, 0.99))
    except (TypeError, ValueError):
        return True
    return False


def _let_adam_take_mixed_betas() -> None:
    original = torch.optim.Adam.__init__

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        if "betas" in keywords:
            keywords["betas"] = tuple(float(beta) for beta in keywords["betas"])
        original(self, *arguments, **keywords)

    torch.optim.Adam.__init__ = __init__  # type: ignore[method-assign]


def _leaves_buffers() -> bool:
    return not getattr(DistributedDataParallel, "_sends_buffers", False)


def _send_buffers() -> None:
    """From the first process, when D or G is wrapped: the noise of StyleGAN2's layers is drawn in each process."""
    original = DistributedDataParallel.__init__

    def __init__(self: Any, module: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, module, *arguments, **keywords)
        if torch.distributed.is_initialized():
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer.data, src=0)

    DistributedDataParallel.__init__ = __init__  # type: ignore[method-assign]
    DistributedDataParallel._sends_buffers = True  # type: ignore[attr-defined]


def _left_locks() -> list[Path]:
    """Those of builds in which nothing has happened for some time: a process that was killed leaves its lock, and the
    next build would wait for it forever."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return [lock for lock in Path(root).rglob("lock") if time.time() - _latest_change(lock.parent) > _IDLE]


def _latest_change(folder: Path) -> float:
    return max((path.stat().st_mtime for path in [folder, *folder.iterdir()]), default=0.0)


def _remove_left_locks() -> None:
    for lock in _left_locks():
        lock.unlink(missing_ok=True)


REPAIRS = (
    Repair("sampler", "torch's Sampler takes no dataset", _sampler_refuses, _let_samplers_take_a_dataset),
    Repair("pkg_resources", "setuptools has no pkg_resources", _is_missing("pkg_resources"), _provide_pkg_resources),
    Repair("distutils", "Python has no distutils", _is_missing("distutils"), _provide_distutils),
    Repair("betas", "Adam refuses betas that mix int and float", _adam_refuses_mixed_betas, _let_adam_take_mixed_betas),
    Repair("locks", "a kernel build that was killed left a lock", lambda: bool(_left_locks()), _remove_left_locks),
    Repair("buffers", "DistributedDataParallel leaves buffers different", _leaves_buffers, _send_buffers),
)
