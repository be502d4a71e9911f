"""Start the processes of one job on this machine; if one fails, stop the others."""

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

from dnnlib.threads import SET_HERE, usable_cpus
from torch_utils.stop_signals import stop_signals_go_to

__all__ = ["die_with_the_launcher", "free_port", "launch"]

_LAUNCHER = "KD_LAUNCHER_PID"
GRACE_SEC = 20.0  # from a process's death to the end of the others: they may be saving
_TOGETHER_SEC = 2.0  # an error that all processes share reaches all of them within this time


def launch(command: Sequence[str], processes: int) -> int:
    """Run `command` in several processes with the environment variables of torchrun (RANK, WORLD_SIZE, ...).

    Only process 0 writes to the console; another's stderr is shown if it was the first to fail. Stop signals are passed
    on. Once a process has failed, the others get SIGTERM, and SIGKILL after GRACE_SEC.

    Returns:
        The exit status: 0, that of the first process that failed, or 128 + the number of the signal that killed it.
    """
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        _LAUNCHER: str(os.getpid()),
    }
    shared |= _threads_of(processes)
    children: list[subprocess.Popen[bytes]] = []
    # Files, because a pipe that nobody reads would block its writer.
    messages = [tempfile.TemporaryFile() for _ in range(processes)]  # noqa: SIM115
    with _passing_on(children):
        for rank in range(processes):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            quiet = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": messages[rank]}
            # In a new session: Ctrl-C reaches only this process, which passes it on once.
            children.append(subprocess.Popen(command, env=environment, start_new_session=True, **quiet))  # type: ignore[call-overload]
        failed = _first_failure(children)
        if failed is None:
            return 0
        _stop(children)
    status = children[failed].returncode
    if failed:
        messages[failed].seek(0)
        message = messages[failed].read().decode(errors="replace").strip()
        message = message or "it wrote no message"
        print(f"process {failed} of {processes} failed ({_cause(status)}): {message}", file=sys.stderr)
    elif status < 0:
        print(f"process 0 of {processes} failed ({_cause(status)})", file=sys.stderr)
    return status if status > 0 else 128 - status


def _threads_of(processes: int) -> dict[str, str]:
    """An equal share of the usable CPUs for each process, unless the user has chosen a number of threads."""
    if "OMP_NUM_THREADS" in os.environ and "OMP_NUM_THREADS" not in SET_HERE:
        return {}
    return {"OMP_NUM_THREADS": str(max(usable_cpus() // processes, 1))}


def die_with_the_launcher() -> None:
    """Let the kernel send this process SIGTERM when its launcher dies, for whatever reason (Linux)."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != int(launcher):
        sys.exit(128 + signal.SIGTERM)  # the launcher is dead already


def _first_failure(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have succeeded (None) or one has failed; returns its index.

    0 if process 0 failed with the same status: then the error is common to all, and process 0 has printed it.
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

    with stop_signals_go_to(send):
        yield


def _cause(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
