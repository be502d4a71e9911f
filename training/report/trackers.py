"""Showing a run elsewhere while it trains: TensorBoard where it is installed, Weights & Biases if asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dnnlib.errors import UserError

__all__ = ["Tracker", "Trackers", "open_trackers", "require_wandb"]


class Tracker(Protocol):
    """One of them. `nimg` counts the images shown."""

    def scalars(self, values: Mapping[str, float], nimg: int) -> None: ...

    def picture(self, name: str, path: Path, nimg: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir=runs`."""

    def __init__(self, run_dir: Path, start_nimg: int) -> None:
        module: Any = importlib.import_module("torch.utils.tensorboard")
        # Steps that a killed run logged after its last save are hidden: the continuation repeats them.
        self._writer = module.SummaryWriter(str(run_dir), purge_step=start_nimg + 1 if start_nimg else None)

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, nimg)
        self._writer.flush()

    def picture(self, name: str, path: Path, nimg: int) -> None:
        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), nimg, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of a Weights & Biases project; `--resume` continues it under the same id, the name of the run's folder."""

    def __init__(self, project: str, run_dir: Path, config: Mapping[str, Any]) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        name = run_dir.name
        try:
            self._run = self._wandb.init(
                project=project, name=name, id=f"{run_dir.parent.name}-{name}", resume="allow", dir=str(run_dir),
                config=dict(config),
            )  # fmt: skip
        except Exception as error:  # theirs: no login, no network
            raise UserError(f"--wandb={project} cannot start: {error}; try WANDB_MODE=offline") from error

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        self._run.log(dict(values), step=nimg)

    def picture(self, name: str, path: Path, nimg: int) -> None:
        self._run.log({name: self._wandb.Image(str(path))}, step=nimg)

    def close(self) -> None:
        self._run.finish()


class Trackers:
    """Several; one that fails is left out from then on, and the training continues.

    Args:
        members: by name.
        on_failure: gets a line for the log.
    """

    def __init__(self, members: Mapping[str, Tracker], on_failure: Callable[[str], None]) -> None:
        self._members, self._on_failure = dict(members), on_failure

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        self._each(lambda member: member.scalars(values, nimg))

    def picture(self, name: str, path: Path, nimg: int) -> None:
        self._each(lambda member: member.picture(name, path, nimg))

    def close(self) -> None:
        self._each(lambda member: member.close())

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, member in list(self._members.items()):
            try:
                action(member)
            except Exception as error:  # theirs: of the network, of a server, of a file
                del self._members[name]
                self._on_failure(f"Warning:     {name} failed and is left out from now on: {error}")


def require_wandb(project: str | None) -> None:
    """
    Raises:
        UserError: --wandb without the package.
    """
    if project is not None and find_spec("wandb") is None:
        raise UserError(f"--wandb={project} needs a package that is not installed: pip install wandb")


def open_trackers(
    run_dir: Path, config: Mapping[str, Any], start_nimg: int, on_failure: Callable[[str], None]
) -> Trackers:
    """TensorBoard if it is installed, Weights & Biases with --wandb.

    Args:
        run_dir: of the run.
        config: its options.
        start_nimg: where it stands.
        on_failure: gets a line for the log.
    """
    members: dict[str, Tracker] = {}
    if find_spec("tensorboard") is not None:
        members["TensorBoard"] = TensorBoard(run_dir, start_nimg)
    if config["wandb"] is not None:
        members["Weights & Biases"] = WandB(config["wandb"], run_dir, config)
    return Trackers(members, on_failure)
