"""What the line does that a patch adds to train.py (kd_plugin.hosts.patch)."""

from __future__ import annotations

import sys
from pathlib import Path

from kd_plugin.programs import ends_with_message, require_packages

__all__ = ["extend"]


def extend(name: str, file: str) -> None:
    """Run train.py through the launcher, if it was started as a program, and end the process.

    Args:
        name: its `__name__`.
        file: its `__file__`.
    """
    if name not in ("__main__", "__mp_main__"):  # imported, by the launcher
        return
    require_packages("kd_plugin.hosts")
    from kd_plugin.hosts.checkouts import recognise
    from kd_plugin.hosts.launch import Launch, launch, prepare

    repo = Path(file).resolve().parent
    if name == "__mp_main__":  # a process for one of several GPUs
        prepare(repo)
    else:
        with ends_with_message():
            launch(Launch(repo, recognise(repo, force=True)), sys.argv[1:])
        sys.exit(0)
