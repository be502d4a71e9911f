"""The place of this process in a job, as torchrun and `launch` write it into the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dnnlib.errors import UserError

__all__ = ["Place", "place_in_job"]

_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """Process `rank` of `world`; on its machine, process `local_rank` of `local_world`."""

    world: int
    rank: int
    local_rank: int
    local_world: int


def place_in_job() -> Place | None:
    """None if this process was started by itself.

    Raises:
        UserError: variables that are missing or no numbers, as cluster software leaves them that sets only some.
    """
    if "WORLD_SIZE" not in os.environ:
        return None
    world = _number("WORLD_SIZE", least=1)
    if world == 1:  # alone: the others do not matter
        return Place(1, 0, _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0, 1)
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"the environment says WORLD_SIZE={world}, a job of {world} processes, but lacks {', '.join(missing)}; "
            f"start them with torchrun or --gpus={world}, or unset WORLD_SIZE to train in one process"
        )
    place = Place(world, _number("RANK"), _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE", least=1))
    if place.rank >= world:
        raise UserError(f"the environment says RANK={place.rank}, but WORLD_SIZE={world}; start them with torchrun")
    return place


def _number(name: str, least: int = 0) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise UserError(
            f"the environment says {name}={text!r}; expected a whole number, at least {least}; start processes with "
            "torchrun or --gpus, or unset WORLD_SIZE to train in one process"
        )
    return int(text)
