"""Runs as one array of Slurm jobs, through submitit; a preempted run saves its state and continues when requeued."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from experiments.runs import Outcome, Run, finish, start

__all__ = ["Job", "parameters_of", "require_slurm", "submit"]

DEFAULTS: Mapping[str, Any] = {"timeout_min": 24 * 60, "gpus_per_node": 1, "cpus_per_task": 4, "mem_gb": 16}


class Job:
    """One run. submitit pickles it, calls it on the node, and asks for a checkpoint when the job is to be preempted."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> Outcome:
        self.process = start(self.run, os.environ)
        return finish(self.run, self.process)

    def checkpoint(self) -> Any:
        """Stops the training, which saves, and asks for another start: the command continues the run."""
        import submitit

        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        return submitit.helpers.DelayedSubmission(Job(self.run))


def parameters_of(text: str) -> dict[str, Any]:
    """'partition=gpu,timeout_min=600' -> parameters of submitit's executor, over DEFAULTS.

    Raises:
        UserError: an entry is not NAME=VALUE.
    """
    given: dict[str, Any] = {}
    for entry in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not (name and equals and value):
            raise UserError(f"--slurm: '{entry}' was given, expected NAME=VALUE, such as partition=gpu,timeout_min=600")
        named = f"slurm_{name}" if name in ("partition", "account", "qos", "constraint", "exclude") else name
        given[named] = int(value) if value.isdecimal() else value
    return {**DEFAULTS, **given}


def require_slurm() -> None:
    """
    Raises:
        UserError: there is no Slurm on this machine, or no submitit.
    """
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no Slurm on this machine (no sbatch); leave --slurm out to run here")
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--slurm needs submitit, which is not installed: pip install submitit")


def submit(
    runs: Sequence[Run], folder: Path, parameters: Mapping[str, Any], at_once: int, cluster: str = "slurm"
) -> list[Any]:
    """Submits an array of jobs, at most `at_once` of which run at the same time.

    Args:
        runs: to be trained.
        folder: for submitit's scripts and logs.
        parameters: of submitit's executor.
        at_once: the array's limit.
        cluster: submitit's name of what runs the jobs. Tests use "local".

    Returns:
        submitit's jobs, one a run.

    Raises:
        UserError: a parameter is unknown.
    """
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    try:
        executor.update_parameters(**parameters, slurm_array_parallelism=at_once, name="kd_plugin")
    except (NameError, TypeError, ValueError) as error:
        raise UserError(f"--slurm: {error}") from None
    with executor.batch():
        return [executor.submit(Job(run)) for run in runs]
