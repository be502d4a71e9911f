"""A new run from another run's weights: what is taken over, what starts anew, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from dnnlib.errors import UserError
from training.checkpoint import Snapshot

__all__ = ["take_weights"]

LEAST = 0.05  # of a network's parameters: with fewer it is not a warm start

# Constructor arguments that decide shapes, and the flags they come from.
_FLAGS = {
    "img_resolution": "--resolution",
    "channel_base": "--cbase",
    "channel_max": "--cmax",
    "z_dim": "--z-dim",
    "w_dim": "--w-dim",
    "mapping_layers": "--map-depth",
    "architecture": "--arch",
    "use_noise": "--noise",
    "c_dim": "--cond (width of the labels)",
    "img_channels": "the images' channels",
}


def take_weights(networks: Mapping[str, nn.Module], snapshot: Snapshot) -> list[str]:
    """Copies every tensor whose name and shape agree into `networks`.

    Returns:
        Lines that say how much was taken, what starts anew, and which flags make the difference.

    Raises:
        UserError: some network has hardly anything to take.
    """
    lines, differences = [], _differing_flags(networks, snapshot)
    for role, network in networks.items():
        parameters, source = network.state_dict(), snapshot.networks[role].state_dict()
        fitting = {
            name: value
            for name, value in source.items()
            if name in parameters and parameters[name].shape == value.shape
        }
        share = sum(value.numel() for value in fitting.values()) / sum(value.numel() for value in parameters.values())
        if share < LEAST:
            why = f"; the snapshot {'; it '.join(differences)}" if differences else ""
            raise UserError(
                f"--resume: hardly anything of the snapshot's {role} ({share:.1%}) fits the new network{why}"
            )
        network.load_state_dict(fitting, strict=False)
        text = f"{role}: {share:.1%} of the weights taken over"
        for what, names in (
            ("new here", parameters.keys() - source.keys()),
            ("other shape", parameters.keys() & source.keys()),
        ):
            if where := _places(name for name in names if name not in fitting):
                text += f"; {what}: {where}"
        lines.append(text)
    return lines + [f"the snapshot {difference}" for difference in differences]


def _differing_flags(networks: Mapping[str, nn.Module], snapshot: Snapshot) -> list[str]:
    """'has --cbase=512, this run 1024; to take over all, give --cbase=512'."""
    differences: dict[str, str] = {}
    for role, network in networks.items():
        kwargs: Any = network.init_kwargs
        source: Any = snapshot.networks[role].init_kwargs
        for argument, flag in _FLAGS.items():
            if argument in kwargs and kwargs[argument] != source.get(argument):
                theirs, ours = source.get(argument), kwargs[argument]
                advice = f"; to take over all, give {flag}={theirs}" if " " not in flag else ""
                differences[argument] = f"has {flag}={theirs}, this run {ours}{advice}"
    return list(differences.values())


def _places(names: Iterable[str]) -> str:
    """The blocks that the tensors `names` belong to: 'synthesis.b64, mapping.embed'."""
    parts: dict[str, None] = {}
    for name in sorted(names):
        pieces = name.split(".")
        depth = 2 if pieces[0] in ("synthesis", "mapping") else 1
        parts[".".join(pieces[:depth])] = None
    return ", ".join(parts)
