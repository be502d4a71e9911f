"""A run as its folder tells it, of this trainer or of an official StyleGAN checkout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from dnnlib.files import files_by_kimg
from kd_plugin.errors import first_line
from kd_plugin.file_kinds import what_it_is
from training.checkpoint import SNAPSHOTS
from training.monitors.metrics import BEST_SNAPSHOT
from training.report.image_grid import GRIDS
from training.report.records import STATS, MetricCurve, read_metrics, read_stats
from training.resume import CONFIG, read_config

__all__ = ["RunRecord"]

_OFFICIAL_CONFIG = "training_options.json"
_KD_OPTIONS, _KD_PROMPTS = "loss_kwargs.kd.config.", "loss_kwargs.kd.prompts"  # see kd_plugin.hosts
_NOTED = re.compile(r"^(Warning|Note): +(.*)")


@dataclass(frozen=True)
class RunRecord:
    """
    Attributes:
        folder: of the run.
        options: by key; those of the distillation as 'kd.match', and nested ones of official runs likewise.
        prompts: that were used.
        stats: see `read_stats`; empty before the first tick.
        metrics: by name; see `read_metrics`.
        grids: image grids by kimg, in order.
        noted: warnings and notes in the log, each once.
        is_ours: it is of this trainer, whose networks can be loaded.
        content: of the files that its options name; see training.resume.content_of.
    """

    folder: Path
    options: dict[str, Any]
    prompts: tuple[str, ...]
    stats: dict[str, np.ndarray]
    metrics: dict[str, MetricCurve]
    grids: dict[float, Path]
    noted: list[str]
    is_ours: bool
    content: dict[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """
        Raises:
            UserError: it is not the folder of a run; where it holds runs, they are named.
        """
        path = Path(folder)
        ours, official = path / CONFIG, path / _OFFICIAL_CONFIG
        if not ours.is_file() and not official.is_file():
            raise UserError(f"'{folder}' is not the folder of a run: {_what_is_there(path)}")
        try:
            saved = read_config(ours, "RUN") if ours.is_file() else None
            options = json.loads(official.read_text(encoding="utf-8")) if saved is None else saved.options
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"'{official}' cannot be read as JSON: {first_line(error)}") from None
        if not isinstance(options, dict):
            raise UserError(f"'{official}' holds no options")
        flat = {key.replace(_KD_OPTIONS, "kd."): value for key, value in _flat(options).items()}
        prompts = flat.pop(_KD_PROMPTS, None) if saved is None else saved.prompts
        return cls(
            folder=path,
            options=flat,
            prompts=tuple(map(str, prompts)) if isinstance(prompts, list | tuple) else (),
            stats=read_stats(path) if (path / STATS).is_file() else {},
            metrics=read_metrics(path),
            grids=_grids(path),
            noted=_noted(path / "log.txt"),
            is_ours=saved is not None,
            content={} if saved is None else saved.content,
        )

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def images(self) -> str:
        """Where the training images were."""
        return str(self.options.get("data", self.options.get("training_set_kwargs.path", "-")))

    @property
    def teacher(self) -> str:
        """The spec; `none` without distillation."""
        return str(self.options.get("kd.teacher", "none"))

    @cached_property
    def kimg(self) -> float:
        """Where it stands."""
        curve = self.stats.get("Progress/kimg", np.zeros(0))
        return float(curve[-1]) if len(curve) else max(self.grids, default=0.0)

    @property
    def snapshot(self) -> Path | None:
        """The best one where metrics chose it, otherwise the newest; None before the first, and of official runs."""
        best = self.folder / BEST_SNAPSHOT
        return best if best.is_file() else next(reversed(files_by_kimg(self.folder, *SNAPSHOTS).values()), None)


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    if path.is_file():
        return f"it is a file{what_it_is(path)}"
    inner = sorted(each.parent for name in (CONFIG, _OFFICIAL_CONFIG) for each in path.glob(f"*/{name}"))
    if inner:
        listed = " ".join(str(each) for each in inner[:4])
        return f"it holds {len(inner)}; give one or several of them, such as {listed}"
    return f"it holds neither {CONFIG} nor {_OFFICIAL_CONFIG}"


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _grids(folder: Path) -> dict[float, Path]:
    first = folder / "fakes_init.png"
    return {**({0.0: first} if first.is_file() else {}), **files_by_kimg(folder, *GRIDS)}


def _noted(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return list(dict.fromkeys(match[2] for line in lines if (match := _NOTED.match(line))))
