"""Running a function in processes of its own, without a fresh interpreter: importing torch takes seconds.

A forked process starts with the modules that the test process has imported; what it registers or patches dies with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from torch_utils.launch import free_port
from torch_utils.stop_signals import STOP_SIGNALS

__all__ = ["Forked", "ranks"]

_CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
PATIENCE = 300  # seconds


def _run(function: Callable[..., Any], args: tuple[Any, ...], out: str, environment: Mapping[str, str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, encoding="utf-8", closefd=False) for fd in (1, 2))
    os.environ.update(environment)
    _obey_stop_signals()
    torch.set_num_threads(1)  # threads do not survive a fork
    code = 0
    try:
        function(*args)
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the exit handlers of the test process


def _obey_stop_signals() -> None:
    """A shell's background job ignores SIGINT, and nohup's SIGHUP: the tests' programs must not inherit that."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class Forked:
    """`function(*args)` in a process. stdout and stderr go to a file; `returncode` is None while it runs.

    Args:
        function: of a module, so that it can be sent to another interpreter where there is no fork.
        args: of the function.
        out: the file.
        environment: added to the process's.
    """

    def __init__(
        self, function: Callable[..., Any], *args: Any, out: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._out = out
        out.touch()
        self._process = _CONTEXT.Process(
            target=_run, args=(function, args, str(out), dict(environment or {})), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def output(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def kill(self) -> None:
        """Without effect if it has ended."""
        self._process.kill()
        self._process.join()

    def wait(self) -> int:
        """The exit code; minus the signal's number if one ended it."""
        self._process.join(PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still running after {PATIENCE} seconds:\n{self.output}")
        return self._process.exitcode


def ranks(function: Callable[..., Any], *args: Any, world: int, folder: Path) -> list[Forked]:
    """`world` processes that find each other by torchrun's variables, run to their ends. World 1: none are set."""
    environments: list[dict[str, str]] = [{}]
    if world > 1:
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
        }
        environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    processes = [
        Forked(function, *args, out=folder / f"process{rank}of{world}.txt", environment=environment)
        for rank, environment in enumerate(environments)
    ]
    try:
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
    return processes
