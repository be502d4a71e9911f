"""StyleGAN2 networks of the TensorFlow releases: names, axes and offsets of their variables, turned into ours.

Kernels are stored [height, width, in, out], fully connected weights [in, out]; kernels of upsampling convolutions are
turned by half a turn; the biases of styles lack the 1 that they start from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.official.contents import Array, TensorFlowNetwork
from training.official.machine import Refused
from training.official.pytorch import WHOLE_BATCH

__all__ = ["discriminator", "generator"]

OLDEST, ADA = 4, 5  # versions of the file: of StyleGAN2, of StyleGAN2-ADA
_Values = dict[str, np.ndarray]
_Turn = Callable[[np.ndarray], np.ndarray]


def _kernel(x: np.ndarray) -> np.ndarray:
    return x.transpose(3, 2, 0, 1)


def _turned_kernel(x: np.ndarray) -> np.ndarray:
    return _kernel(x[::-1, ::-1])


def _matrix(x: np.ndarray) -> np.ndarray:
    return x.transpose()


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _plus_one(x: np.ndarray) -> np.ndarray:
    return x + 1


def _first(x: np.ndarray) -> np.ndarray:
    return x[0]


def _noise(x: np.ndarray) -> np.ndarray:
    return x[0, 0]


# A variable's name as a pattern, the name of ours, and how its values are turned.
_STYLE = (("mod_weight", "affine.weight", _matrix), ("mod_bias", "affine.bias", _plus_one))
_PLAIN = (("bias", "bias", _same), ("noise_strength", "noise_strength", _same))
_GENERATOR: tuple[tuple[str, str, _Turn], ...] = (
    (r"dlatent_avg", r"mapping.w_avg", _same),
    (r"mapping/LabelEmbed/weight", r"mapping.embed.weight", _matrix),
    (r"mapping/LabelEmbed/bias", r"mapping.embed.bias", _same),
    (r"mapping/Dense(\d+)/weight", r"mapping.fc\1.weight", _matrix),
    (r"mapping/Dense(\d+)/bias", r"mapping.fc\1.bias", _same),
    (r"synthesis/4x4/Const/const", r"synthesis.b4.const", _first),
    (r"synthesis/4x4/Conv/weight", r"synthesis.b4.conv1.weight", _kernel),
    (r"synthesis/(\d+)x\d+/Conv0_up/weight", r"synthesis.b\1.conv0.weight", _turned_kernel),
    (r"synthesis/(\d+)x\d+/Conv1/weight", r"synthesis.b\1.conv1.weight", _kernel),
    (r"synthesis/(\d+)x\d+/ToRGB/weight", r"synthesis.b\1.torgb.weight", _kernel),
    *(
        (rf"synthesis/{where}/{theirs}", rf"synthesis.{layer}.{ours}", turn)
        for where, layer in (
            (r"4x4/Conv", r"b4.conv1"),
            (r"(\d+)x\d+/Conv0_up", r"b\1.conv0"),
            (r"(\d+)x\d+/Conv1", r"b\1.conv1"),
            (r"(\d+)x\d+/ToRGB", r"b\1.torgb"),
        )
        for theirs, ours, turn in (*_STYLE, *_PLAIN)
    ),
)
_DISCRIMINATOR: tuple[tuple[str, str, _Turn], ...] = (
    (r"(\d+)x\d+/FromRGB/weight", r"b\1.fromrgb.weight", _kernel),
    (r"(\d+)x\d+/FromRGB/bias", r"b\1.fromrgb.bias", _same),
    (r"(\d+)x\d+/Conv(0|1)(?:_down)?/weight", r"b\1.conv\2.weight", _kernel),
    (r"(\d+)x\d+/Conv(0|1)(?:_down)?/bias", r"b\1.conv\2.bias", _same),
    (r"(\d+)x\d+/Skip/weight", r"b\1.skip.weight", _kernel),
    (r"LabelEmbed/weight", r"mapping.embed.weight", _matrix),
    (r"LabelEmbed/bias", r"mapping.embed.bias", _same),
    (r"Mapping(\d+)/weight", r"mapping.fc\1.weight", _matrix),
    (r"Mapping(\d+)/bias", r"mapping.fc\1.bias", _same),
    (r"4x4/Conv/weight", r"b4.conv.weight", _kernel),
    (r"4x4/Conv/bias", r"b4.conv.bias", _same),
    (r"4x4/Dense0/weight", r"b4.fc.weight", _matrix),
    (r"4x4/Dense0/bias", r"b4.fc.bias", _same),
    (r"Output/weight", r"b4.out.weight", _matrix),
    (r"Output/bias", r"b4.out.bias", _same),
)
_STATE_OF_TRAINING = re.compile(r"(.*/)?lod|pl_mean.*|(.*/)?pl_mean_var")  # not of the network


def generator(network: TensorFlowNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """
    Raises:
        Refused: another network, an older version, or something that ours does not have.
    """
    values, options = _variables(network), _options(network)
    state = _renamed(_without_noise(values), _GENERATOR)
    sides = [int(match[1]) for name in state if (match := re.match(r"synthesis\.b(\d+)\.conv1\.weight", name))]
    for side in sides:
        for layer in ("conv0", "conv1"):
            found = values.get(f"synthesis/noise{2 * int(math.log2(side)) - (5 if layer == 'conv0' else 4)}")
            if found is not None and (side > 4 or layer == "conv1"):
                state[f"synthesis.b{side}.{layer}.noise_const"] = _tensor(found, _noise)
    width = _shape(state, "mapping.w_avg")[0]
    labels = state.get("mapping.embed.weight")
    inputs = _shape(state, "mapping.fc0.weight")[1]
    return {
        "z_dim": inputs if labels is None else inputs - labels.shape[0],
        "c_dim": 0 if labels is None else labels.shape[1],
        "w_dim": width,
        "img_resolution": max(sides, default=4),
        "img_channels": _shape(state, "synthesis.b4.torgb.weight")[0],
        "mapping_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
        **_limits(options),
        "use_noise": "synthesis.b4.conv1.noise_strength" in state,
    }, state


def discriminator(network: TensorFlowNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """
    Raises:
        Refused: as `generator`.
    """
    values, options = _variables(network), _options(network)
    state = _renamed(values, _DISCRIMINATOR)
    sides = [int(match[1]) for name in state if (match := re.match(r"b(\d+)\.conv0\.weight", name))]
    reading = [name for name in state if name.endswith("fromrgb.weight")]
    if not reading:
        raise Refused("its discriminator does not read images")
    kind = "resnet" if any("skip" in name for name in state) else "skip" if len(reading) > 1 else "orig"
    group = options.get("mbstd_group_size", 4 if network.state["version"] < ADA else None)
    labels = state.get("mapping.embed.weight")
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state)
    for index in range(layers):  # 0.1 there, 0.01 here
        for part in ("weight", "bias"):
            state[f"mapping.fc{index}.{part}"] *= options.get("mapping_lrmul", 0.1) / 0.01
    return {
        "c_dim": 0 if labels is None else labels.shape[1],
        "img_resolution": max(sides, default=4),
        "img_channels": _shape(state, reading[0])[1],
        "architecture": kind,
        **_limits(options),
        "mbstd_group_size": WHOLE_BATCH if group is None else group,
        **({} if labels is None else {"mapping_layers": layers}),
    }, state


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "channel_base": 2 * options.get("fmap_base", 16384),
        "channel_max": options.get("fmap_max", 512),
        "num_fp16_res": options.get("num_fp16_res", 0),
        "conv_clamp": options.get("conv_clamp"),
    }


def _options(network: TensorFlowNetwork) -> dict[str, Any]:
    """Those given to the network."""
    options = network.state.get("static_kwargs")
    if not isinstance(options, dict):
        raise Refused("a TensorFlow network in it has no options")
    if options.get("nonlinearity", "lrelu") != "lrelu":
        raise Refused("its activation is not lrelu, the only one that this trainer has")
    if list(options.get("resample_kernel") or [1, 3, 3, 1]) != [1, 3, 3, 1]:
        raise Refused("its low-pass filter is not [1, 3, 3, 1], the only one that this trainer has")
    return {name: value for name, value in options.items() if value is not None}


def _variables(network: TensorFlowNetwork, levels: int = 4) -> _Values:
    """By name, those of the components under 'component/'."""
    if levels == 0:
        raise Refused("its components are nested deeper than those of any network")
    version = network.state.get("version")
    if not isinstance(version, int) or version < OLDEST:
        raise Refused(f"its version is {ascii(version)[:20]}; StyleGAN2's is {OLDEST} or {ADA}, StyleGAN1 is not read")
    values: _Values = {}
    for name, array in network.state.get("variables") or []:
        content = array.values if isinstance(array, Array) else array
        if isinstance(content, (int, float)):
            content = np.array(content)
        if not isinstance(name, str) or not isinstance(content, np.ndarray):
            raise Refused("a TensorFlow variable in it is not an array")
        values[name] = content
    for name, component in (network.state.get("components") or {}).items():
        if not isinstance(component, TensorFlowNetwork):
            raise Refused("a component of its TensorFlow network is not a network")
        values |= {f"{name}/{inner}": array for inner, array in _variables(component, levels - 1).items()}
    return values


def _without_noise(values: _Values) -> _Values:
    return {name: value for name, value in values.items() if not re.fullmatch(r"synthesis/noise\d+", name)}


def _renamed(values: _Values, names: tuple[tuple[str, str, _Turn], ...]) -> dict[str, Tensor]:
    state = {}
    for name, value in values.items():
        if _STATE_OF_TRAINING.fullmatch(name):
            continue
        for theirs, ours, turn in names:
            if re.fullmatch(theirs, name):
                state[re.sub(theirs, ours, name)] = _tensor(value, turn)
                break
        else:
            raise Refused(f"it has the variable {ascii(name)[1:-1][:60]}, which this trainer's networks do not have")
    return state


def _tensor(value: np.ndarray, turn: _Turn) -> Tensor:
    try:
        return torch.from_numpy(np.array(turn(value), dtype=np.float32, order="C"))
    except (ValueError, IndexError) as error:
        raise Refused(f"a variable in it has the shape {list(value.shape)}") from error


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state or not state[name].shape:
        raise Refused(f"it has nothing that becomes {name}")
    return tuple(state[name].shape)
