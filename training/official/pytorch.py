"""StyleGAN2 networks as the official PyTorch code saves them: what they are, read from their parts.

Two checkouts have other defaults for the same arguments, so it is the parts that count: a layer's clamp, a block's
number type. Only what no part shows (the limits of the channels) comes from the arguments, and the shapes check it.
`compare` then holds every part against the module of this trainer that takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.official.contents import Part
from training.official.machine import Refused, shown

__all__ = ["LR_MULTIPLIER", "WHOLE_BATCH", "compare", "discriminator", "generator"]

WHOLE_BATCH = 1 << 20  # as the group of the minibatch statistics: more than any batch
LR_MULTIPLIER = 0.01  # of this trainer's mapping networks
_Network = tuple[dict[str, Any], dict[str, Tensor]]  # arguments of this trainer's class, and its state
_COMPARED = ("activation", "conv_clamp", "up", "down", "use_noise", "architecture")
_FIXED = {
    "activation": "lrelu",
    "up": 1,
    "down": 1,
    "architecture": "skip",
}  # where this trainer's module has no choice


def generator(part: Part) -> _Network:
    """
    Raises:
        Refused: another network, or one with something that this trainer's does not have.
    """
    children = part.children()
    if not children.keys() >= {"synthesis", "mapping"}:
        raise Refused(f"its generator, of the class {part.kind}, is not a StyleGAN")
    synthesis, mapping = children["synthesis"], children["mapping"]
    blocks = _blocks(synthesis)
    if 4 not in blocks:
        raise Refused("its generator is a StyleGAN3 (config T or R), only the StyleGAN2 configuration can be read")
    first = _child(blocks[4], "conv1")
    state = part.tensors()
    arguments = {
        **{name: part.attributes.get(name) for name in ("z_dim", "c_dim", "w_dim", "img_channels")},
        "img_resolution": max(blocks),
        "mapping_layers": _layers(mapping),
        **_limits({**part.arguments, **_dict(part.arguments.get("synthesis_kwargs"))}, blocks),
        "conv_clamp": first.attributes.get("conv_clamp"),
        "use_noise": first.attributes.get("use_noise"),
    }
    _rescale(mapping, state)
    return arguments, state


def discriminator(part: Part) -> _Network:
    """
    Raises:
        Refused: as `generator`.
    """
    children = part.children()
    last = children.get("b4")
    if last is None:
        raise Refused(f"its discriminator, of the class {part.kind}, is not that of StyleGAN2")
    statistics = last.children().get("mbstd")
    if statistics is None or statistics.attributes.get("num_channels") != 1:
        raise Refused("its discriminator has other minibatch statistics than one channel")
    group = statistics.attributes.get("group_size")
    blocks = {side: block for side, block in _blocks(part).items() if side > 4}
    state = part.tensors()
    arguments = {
        "c_dim": part.attributes.get("c_dim"),
        "img_resolution": max(blocks, default=4),
        "img_channels": part.attributes.get("img_channels"),
        "architecture": last.attributes.get("architecture"),
        **_limits(part.arguments, blocks),
        "conv_clamp": _child(last, "conv").attributes.get("conv_clamp"),
        "mbstd_group_size": WHOLE_BATCH if group is None else group,
    }
    if "mapping" in children:
        arguments["mapping_layers"] = _layers(children["mapping"])
        _rescale(children["mapping"], state)
    return arguments, state


def compare(part: Part, network: nn.Module) -> None:
    """
    Args:
        part: of the file.
        network: of this trainer, made with the arguments that `generator` or `discriminator` found.

    Raises:
        Refused: some layer computes something else.
    """
    parts = dict(part.parts())
    for path, module in network.named_modules():
        theirs = parts.get(path)
        if theirs is None:
            continue  # a module without tensors; of any other a tensor is missing
        for attribute in _COMPARED:
            if attribute not in theirs.attributes or path == "b4":  # D's last part: the architecture was taken from it
                continue
            found, expected = theirs.attributes[attribute], getattr(module, attribute, _FIXED.get(attribute))
            if type(found) not in (str, int, float, bool, type(None)) or found != expected:
                raise Refused(f"{path} has {attribute} {shown(found)}, expected {shown(expected)}")
        _compare_gains(path, theirs, module)
        low = theirs.attributes.get("use_fp16", False)
        if hasattr(module, "dtype") and low != (module.dtype == torch.float16):
            raise Refused(f"{path} has use_fp16 {shown(low)}, which does not fit the others")


def _compare_gains(path: str, part: Part, module: nn.Module) -> None:
    """Of a fully connected layer, whose weights may have been rescaled."""
    ours, theirs = getattr(module, "bias_gain", None), part.attributes.get("bias_gain")
    if ours is None or theirs is None:
        return
    weight = _number(part.attributes.get("weight_gain"))
    theirs = _number(theirs)
    if not math.isclose(weight / theirs, float(module.weight_gain) / ours, rel_tol=1e-4):  # type: ignore[arg-type]
        raise Refused(f"{path} scales its weights in another way")
    if "mapping" not in path and not math.isclose(theirs, ours, rel_tol=1e-4):
        raise Refused(f"{path} has the learning rate multiplier {shown(theirs)}, expected {shown(ours)}")


def _limits(arguments: Mapping[str, Any], blocks: Mapping[int, Part]) -> dict[str, Any]:
    """Of the channels, and how many resolutions are low: as the file says where the blocks agree (`compare` looks)."""
    low = sum(block.attributes.get("use_fp16") is True for block in blocks.values())
    said = arguments.get("num_fp16_res", low)
    more = type(said) is int and said > low  # the lowest resolutions are never low
    return {
        "channel_base": arguments.get("channel_base", 32768),
        "channel_max": arguments.get("channel_max", 512),
        "num_fp16_res": said if more and low == sum(side > 4 for side in blocks) else low,
    }


def _blocks(part: Part) -> dict[int, Part]:
    return {
        int(name[1:]): child
        for name, child in part.children().items()
        if name[:1] == "b" and name.isascii() and name[1:].isdecimal() and len(name) < 8
    }


def _layers(mapping: Part) -> int:
    return sum(name.startswith("fc") for name in mapping.children())


def _rescale(mapping: Part, state: dict[str, Tensor]) -> None:
    """Of a mapping network with another learning rate multiplier: weights that do the same with LR_MULTIPLIER."""
    for index in range(_layers(mapping)):
        multiplier = _number(_child(mapping, f"fc{index}").attributes.get("bias_gain"))
        for kind in ("weight", "bias"):
            key = f"mapping.fc{index}.{kind}"
            if multiplier != LR_MULTIPLIER and key in state:
                state[key] = state[key] * (multiplier / LR_MULTIPLIER)


def _child(part: Part, name: str) -> Part:
    child = part.children().get(name)
    if child is None:
        raise Refused(f"a {part.kind} in it has no {name}")
    return child


def _dict(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise Refused(f"a layer in it is scaled by {shown(value)}")
    return float(value)
