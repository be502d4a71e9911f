"""A whole table in minutes on a CPU: the same cells, on drawings, with tiny networks. Its figures mean nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.table import Axis, Choice, Table

__all__ = ["SCALES", "scaled"]

SCALES = ("full", "smoke")
_METRIC = "kid24_full"
_TINY: dict[str, Any] = {
    "kimg": 0.032,
    "tick": 0.016,
    "snap": 1,
    "batch": 4,
    "cmax": 8,
    "metrics": _METRIC,
    "holdout": 0,
    "cond": False,
}
_OF_STYLEGAN2 = {"cbase": 128, "mbstd_group": 2, "map_depth": 2}
_DROPPED = {"data", "reference", "gpus", "best", "kd_prompts"}  # other images, and one process


def scaled(table: Table, scale: str) -> Table:
    """The table as it is, or with `smoke` a sketch of it: drawings for each column, the demo's teacher as teacher and
    detector, 32 images of training. Published figures are left out."""
    if scale == "full":
        return table
    of_model = {} if table.flags.get("cfg") == "biggan_cifar" else _OF_STYLEGAN2
    axes = [Axis(axis.name, tuple(_on_drawings(axis.choice, table, axis is table.axis[-1]))) for axis in table.axis]
    return dataclasses.replace(
        table,
        title=f"Smoke test of: {table.title}",
        protocol="a smoke test on drawings: it shows that everything runs; its figures mean nothing",
        metric=_METRIC,
        seeds=1,
        flags={key: value for key, value in table.flags.items() if key not in _DROPPED} | _TINY | of_model,
        axis=tuple(axes),
        teacher="demo",
        detector="demo",
        published=(),
        elsewhere=(),
        prepare={},
        gigabytes={},
        sec_per_kimg={},
        resolution=32,
    )


def _on_drawings(choices: tuple[Choice, ...], table: Table, columns: bool) -> list[Choice]:
    """The choices with drawings, another series for each column, and without what `_TINY` sets."""
    found = []
    for number, choice in enumerate(choices):
        flags = {key: value for key, value in choice.flags.items() if key not in _TINY.keys() | _DROPPED}
        if columns:
            flags["data"] = f"demo:24@{number}"
        if flags.get("kd", "none") != "none":
            flags["kd"] = "{teacher}"
        found.append(Choice(choice.name, flags))
    return found
