"""Starts the processes of one job on this machine, and sees to it that they live and die together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from types import FrameType

__all__ = ["die_with_the_launcher", "launch"]

_LAUNCHER = "KD_LAUNCHER_PID"
GRACE_SEC = 20.0  # from a process's death to the end of the others: they may be saving
_TOGETHER_SEC = 2.0  # an error that all of them make is made by all within this time


def launch(command: Sequence[str], processes: int) -> int:
    """Runs `command` so many times, as torchrun does: RANK, WORLD_SIZE, MASTER_ADDR and so on tell them who they are.

    Process 0 speaks for all; what another says on stderr is shown if it was the first to fail. SIGINT and SIGTERM are
    passed on. Once one has failed, the others are told to stop, and after GRACE_SEC made to.

    Returns:
        The exit status: 0, that of the first that failed, or 128 + the number of the signal it died of.
    """
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        _LAUNCHER: str(os.getpid()),
    }
    threads = max((os.cpu_count() or 1) // processes, 1)
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    children: list[subprocess.Popen[bytes]] = []
    # Files, for a pipe that nobody reads would block who writes to it.
    words = [tempfile.TemporaryFile() for _ in range(processes)]  # noqa: SIM115
    with _passing_on(children):
        for rank in range(processes):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            quiet = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": words[rank]}
            # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
            children.append(subprocess.Popen(command, env=environment, start_new_session=True, **quiet))  # type: ignore[call-overload]
        failed = _first_failure(children)
        if failed is None:
            return 0
        _stop(children)
    status = children[failed].returncode
    if failed:
        words[failed].seek(0)
        said = words[failed].read().decode(errors="replace").strip()
        print(
            f"process {failed} of {processes} failed ({_cause(status)}): {said or 'it said nothing'}", file=sys.stderr
        )
    elif status < 0:
        print(f"process 0 of {processes} failed ({_cause(status)})", file=sys.stderr)
    return status if status > 0 else 128 - status


def die_with_the_launcher() -> None:
    """Has the kernel send this process SIGTERM when the one that launched it dies, however it dies (Linux)."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != int(launcher):
        sys.exit(128 + signal.SIGTERM)  # it is dead already


def _first_failure(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits for all to end well, or one to fail, and says which was the first.

    Process 0 where it failed in the same way: then all did, and it has said so.
    """
    while True:
        statuses = [child.poll() for child in children]
        if all(status == 0 for status in statuses):
            return None
        failed = [rank for rank, status in enumerate(statuses) if status not in (None, 0)]
        if failed:
            deadline = time.monotonic() + _TOGETHER_SEC
            while time.monotonic() < deadline and any(child.poll() is None for child in children):
                time.sleep(0.05)
            return 0 if children[0].returncode == statuses[failed[0]] else failed[0]
        time.sleep(0.05)


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE_SEC
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(deadline - time.monotonic(), 0.1))
        if child.poll() is None:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _passing_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def send(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _cause(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
