"""What official checkouts need on the Python and torch of today is tried, mended, named, and can be left out."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kd_plugin import KDError
from kd_plugin.hosts import repairs
from kd_plugin.hosts.repairs import REPAIRS, mend
from tests.forked import Forked, ranks


def in_a_process(check: Callable[[], None], tmp_path: Path) -> None:
    """What is mended stays mended until the process ends."""
    process = Forked(check, out=tmp_path / "output.txt")
    assert process.wait() == 0, process.output


def names(found: list[repairs.Repair]) -> list[str]:
    return [repair.name for repair in found]


class Endless(torch.utils.data.Sampler):  # type: ignore[type-arg]
    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)  # type: ignore[call-arg]
        self.dataset = dataset


def a_sampler() -> None:
    mend(["sampler"])
    try:
        Endless([1, 2])
    except TypeError:
        assert "sampler" in names(mend())
    assert Endless([1, 2]).dataset == [1, 2]
    assert "sampler" not in names(mend())


def test_a_sampler_takes_its_dataset(tmp_path: Path) -> None:
    in_a_process(a_sampler, tmp_path)


def hidden_modules() -> None:
    find = importlib.util.find_spec
    hidden = ("pkg_resources", "distutils")
    importlib.util.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)  # type: ignore[assignment]
    for name in [name for name in sys.modules if name.split(".")[0] in hidden]:
        del sys.modules[name]
    assert "pkg_resources" not in names(mend(["pkg_resources"]))
    assert "pkg_resources" not in sys.modules
    assert {"pkg_resources", "distutils"} - set(names(mend())) <= {"distutils"}  # mended by the first call
    parse_version = importlib.import_module("pkg_resources").parse_version
    assert parse_version("1.12.0a0+cu116") >= parse_version("1.11.0a")
    assert parse_version("2.13.0") > parse_version("2.4")
    assert parse_version("1.9.1") < parse_version("1.10")
    strtobool = importlib.import_module("distutils.util").strtobool
    assert [strtobool(word) for word in ("Yes", "1", "off", "n")] == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="invalid truth value 'maybe'"):
        strtobool("maybe")


def test_modules_that_are_gone(tmp_path: Path) -> None:
    in_a_process(hidden_modules, tmp_path)


def betas() -> None:
    options: Any = {"betas": [0, 0.99], "lr": 0.002}
    mend()
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], **options)
    assert all(isinstance(beta, float) for beta in optimizer.defaults["betas"])
    assert "betas" not in names(mend())


def test_betas(tmp_path: Path) -> None:
    in_a_process(betas, tmp_path)


def test_locks_that_a_killed_build_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (locks,) = (repair for repair in REPAIRS if repair.name == "locks")
    made = {name: tmp_path / name / "lock" for name in ("left", "building")}
    hour_ago = time.time() - 3600
    for name, lock in made.items():
        lock.parent.mkdir()
        lock.touch()
        (lock.parent / "plugin.o").touch()
        for path in (lock, *([] if name == "building" else [lock.parent / "plugin.o"]), lock.parent):
            os.utime(path, (hour_ago, hour_ago))
    assert locks.needed()
    locks.apply()
    assert not made["left"].exists()
    assert made["building"].exists()  # its other file is new
    assert not locks.needed()


def with_noise(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    torch.manual_seed(rank)
    dist.init_process_group("gloo")
    mend()
    module = nn.Linear(2, 2)
    module.register_buffer("noise", torch.randn(3))
    DistributedDataParallel(module, broadcast_buffers=False)
    torch.save(module.noise, folder / f"noise{rank}.pt")
    dist.barrier()
    os._exit(0)


def test_buffers_are_those_of_the_first_process(tmp_path: Path) -> None:
    for process in ranks(with_noise, tmp_path, world=2, folder=tmp_path):
        assert process.returncode == 0, process.output
    first, second = (torch.load(tmp_path / f"noise{rank}.pt") for rank in (0, 1))
    torch.manual_seed(0)
    assert torch.equal(first, second)


def test_an_unknown_repair() -> None:
    with pytest.raises(KDError, match="--without=samplers is not a repair; nearest: 'sampler'"):
        mend(["samplers"])
