"""What the plug-in's programs (`python -m kd_plugin.probe`) have in common."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from kd_plugin.errors import KDError, command_line

__all__ = ["ends_with_message", "print_any_text", "require_packages"]


def require_packages(program: str) -> None:
    """End the program if click or pillow is missing, which the plug-in itself does not need."""
    if find_spec("click") is None or find_spec("PIL") is None:
        sys.stderr.write(f"Error: python -m {program} needs two more packages: pip install click pillow\n")
        sys.exit(2)


def print_any_text() -> None:
    """What the console's encoding lacks is printed as \\u0439 from now on; it would be an error otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def ends_with_message() -> Iterator[None]:
    """In this block messages name flags, and a user's mistake ends the program with its message and status 2."""
    print_any_text()
    try:
        with command_line():
            yield
    except KDError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
