"""A new run from another run's weights: what is taken over, what starts anew, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dnnlib.errors import UserError
from kd_plugin.config.click_flags import plain_flag
from training.checkpoint import Snapshot
from training.networks import Network, model_of

__all__ = ["take_weights"]

LEAST = 0.05  # of a network's parameters: with fewer it is not a warm start

# What the images decide, in words. The other arguments of a network have flags.
_OF_THE_IMAGES = {
    "img_resolution": "--resolution",
    "c_dim": "--cond (width of the labels)",
    "img_channels": "the images' channels",
}
_NO_SHAPES = {"num_fp16_res", "conv_clamp", "mbstd_group_size"}  # arguments that change no weight's shape


def take_weights(networks: Mapping[str, Network], snapshot: Snapshot) -> list[str]:
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


def _differing_flags(networks: Mapping[str, Network], snapshot: Snapshot) -> list[str]:
    """'has --cbase=512, this run 1024; to take over all, give --cbase=512'."""
    differences: dict[str, str] = {}
    for role, network in networks.items():
        other = snapshot.networks[role]
        if model_of(other) != model_of(network):
            return [f"has --model={model_of(other)}, this run {model_of(network)}"]
        flags = _OF_THE_IMAGES | {name: plain_flag(field) for name, field in network.options.items()}
        for argument, flag in flags.items():
            theirs, ours = other.init_kwargs.get(argument), network.init_kwargs[argument]
            if argument not in _NO_SHAPES and theirs != ours:
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
