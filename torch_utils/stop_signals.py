"""The signals that ask a program to stop, and catching them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["STOP_SIGNALS", "stop_signals_go_to"]

# Ctrl-C; a scheduler; a terminal that was closed; Slurm's --signal, before a job's time is over. Windows has fewer.
STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


@contextmanager
def stop_signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In this block they call `handler`, except those that the program was told to ignore (nohup).

    Python lets only the main thread handle signals: in others (a notebook's, a server's) nothing is caught.
    """
    here = threading.current_thread() is threading.main_thread()
    caught = [number for number in STOP_SIGNALS if here and signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in caught}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
