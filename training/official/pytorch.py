"""StyleGAN2 networks as the official PyTorch code saves them: what they are, read from their parts.

Two checkouts have other defaults for the same arguments, so it is the parts that count: a layer's clamp, a block's
number type. Only what no part shows (the limits of the channels) comes from the arguments, and the shapes check it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from training.official.contents import Part
from training.official.machine import Refused

__all__ = ["WHOLE_BATCH", "discriminator", "generator"]

WHOLE_BATCH = 1 << 20  # as the group of the minibatch statistics: more than any batch
_LR_MULTIPLIER = 0.01  # of our mapping networks
_Network = tuple[dict[str, Any], dict[str, Tensor]]  # arguments of ours, and its state


def generator(part: Part) -> _Network:
    """
    Raises:
        Refused: another network, or one with something that ours does not have.
    """
    synthesis, mapping = part.child("synthesis"), part.child("mapping")
    if synthesis is None or mapping is None:
        raise Refused(f"its generator, of the class {part.kind}, is not a StyleGAN")
    blocks = dict(_blocks(synthesis))
    if 4 not in blocks:
        raise Refused("its generator is a StyleGAN3 (config T or R), only the StyleGAN2 configuration can be read")
    for block in blocks.values():
        _expect(block, "architecture", "skip")
        for layer in (block.child("conv0"), block.child("conv1")):
            if layer is not None:
                _expect(layer, "activation", "lrelu")
    first = _child(blocks[4], "conv1")
    limits = part.arguments | dict(part.arguments.get("synthesis_kwargs") or {})
    state = part.tensors()
    arguments = {
        **{name: part.attributes.get(name) for name in ("z_dim", "c_dim", "w_dim", "img_channels")},
        "img_resolution": max(blocks),
        "mapping_layers": _layers(mapping),
        **_limits(limits, blocks),
        "conv_clamp": first.attributes.get("conv_clamp"),
        "use_noise": bool(first.attributes.get("use_noise")),
    }
    _rescale(mapping, "mapping", state)
    return arguments, state


def discriminator(part: Part) -> _Network:
    """
    Raises:
        Refused: as `generator`.
    """
    last = part.child("b4")
    if last is None:
        raise Refused(f"its discriminator, of the class {part.kind}, is not that of StyleGAN2")
    blocks = {side: block for side, block in _blocks(part) if side > 4}
    for block in blocks.values():
        _expect(_child(block, "conv0"), "activation", "lrelu")
    statistics = last.child("mbstd")
    if statistics is None:
        raise Refused("its discriminator has no minibatch statistics")
    _expect(statistics, "num_channels", 1)
    group = statistics.attributes.get("group_size")
    mapping = part.child("mapping")
    state = part.tensors()
    arguments = {
        "c_dim": part.attributes.get("c_dim"),
        "img_resolution": max(blocks, default=4),
        "img_channels": part.attributes.get("img_channels"),
        "architecture": last.attributes.get("architecture"),
        **_limits(part.arguments, blocks),
        "conv_clamp": _child(last, "conv").attributes.get("conv_clamp"),
        "mbstd_group_size": WHOLE_BATCH if group is None else group,
        **({} if mapping is None else {"mapping_layers": _layers(mapping)}),
    }
    if mapping is not None:
        _rescale(mapping, "mapping", state)
    return arguments, state


def _limits(arguments: Mapping[str, Any], blocks: Mapping[int, Part]) -> dict[str, Any]:
    low = sum(bool(block.attributes.get("use_fp16")) for block in blocks.values())
    return {
        "channel_base": arguments.get("channel_base", 32768),
        "channel_max": arguments.get("channel_max", 512),
        "num_fp16_res": arguments.get("num_fp16_res", low),
    }


def _blocks(part: Part) -> Iterator[tuple[int, Part]]:
    for name in part.attributes.get("_modules") or {}:
        child = part.child(name)
        if child is not None and name[:1] == "b" and name[1:].isdecimal() and len(name) < 8:
            yield int(name[1:]), child


def _layers(mapping: Part) -> int:
    return sum(name.startswith("fc") for name in mapping.attributes.get("_modules") or {})


def _rescale(mapping: Part, name: str, state: dict[str, Tensor]) -> None:
    """Of a mapping network with another learning rate multiplier: the stored weights for ours, the same function."""
    for index in range(_layers(mapping)):
        layer = _child(mapping, f"fc{index}")
        _expect(layer, "activation", "lrelu")
        multiplier = float(layer.attributes["bias_gain"])
        if multiplier != _LR_MULTIPLIER:
            for kind in ("weight", "bias"):
                key = f"{name}.fc{index}.{kind}"
                if key in state:
                    state[key] = state[key] * (multiplier / _LR_MULTIPLIER)


def _child(part: Part, name: str) -> Part:
    child = part.child(name)
    if child is None:
        raise Refused(f"a {part.kind} in it has no {name}")
    return child


def _expect(part: Part, attribute: str, value: Any) -> None:
    found = part.attributes.get(attribute)
    if found != value:
        shown = ascii(found)[:40]
        raise Refused(f"a {ascii(part.kind)[1:-1][:40]} in it has {attribute} {shown}, this trainer has only {value}")
