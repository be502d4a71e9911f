"""StyleGAN2 networks of the TensorFlow releases: their variables' names, axes and offsets, turned into this trainer's.

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

from training.official.contents import LONGEST_NAME, Array, TensorFlowNetwork
from training.official.machine import Refused, shown
from training.official.pytorch import LR_MULTIPLIER, WHOLE_BATCH

__all__ = ["discriminator", "generator"]

MOST_COMPONENTS, MOST_VARIABLES = 8, 1000  # official networks have 2 and about 150
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


# A variable's name as a pattern, the name in a state_dict, and how its values are turned.
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
        Refused: another network, an older version, or something that this trainer's does not have.
    """
    values, options = _variables(network), _options(network, "skip")
    state = _renamed(_without_noise(values), _GENERATOR)
    sides = [int(match[1]) for name in state if (match := re.match(r"synthesis\.b(\d+)\.conv1\.weight", name))]
    for side in sides:
        for layer in ("conv0", "conv1"):
            found = values.get(f"synthesis/noise{2 * int(math.log2(side)) - (5 if layer == 'conv0' else 4)}")
            if found is not None and (side > 4 or layer == "conv1"):
                state[f"synthesis.b{side}.{layer}.noise_const"] = _tensor(found, _noise)
    _rescale(state, _multiplier(options, LR_MULTIPLIER))
    noisy = "synthesis.b4.conv1.noise_strength" in state
    if options.get("use_noise", noisy) is not noisy:
        raise Refused(f"it has use_noise {shown(options['use_noise'])}, but not the variables for that")
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
        "use_noise": noisy,
    }, state


def discriminator(network: TensorFlowNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """
    Raises:
        Refused: as `generator`.
    """
    values = _variables(network)
    state = _renamed(values, _DISCRIMINATOR)
    sides = [int(match[1]) for name in state if (match := re.match(r"b(\d+)\.conv0\.weight", name))]
    reading = [name for name in state if name.endswith("fromrgb.weight")]
    if not reading:
        raise Refused("its discriminator does not read images")
    kind = "resnet" if any("skip" in name for name in state) else "skip" if len(reading) > 1 else "orig"
    options = _options(network, kind)
    group = options.get("mbstd_group_size", 4 if network.state["version"] < ADA else None)
    labels = state.get("mapping.embed.weight")
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state)
    _rescale(state, _multiplier(options, 0.1))
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
    base = options.get("fmap_base", 16384)
    return {
        "channel_base": 2 * base if type(base) is int else base,
        "channel_max": options.get("fmap_max", 512),
        "num_fp16_res": options.get("num_fp16_res", 0),
        "conv_clamp": options.get("conv_clamp"),
    }


# Options that the shapes show, that _limits passes on, or that matter in training only.
_SHOWN = frozenset(
    (
        *("latent_size", "label_size", "dlatent_size", "dlatent_broadcast", "num_channels", "resolution"),
        *("mapping_layers", "mapping_fmaps", "mapping_lrmul", "label_fmaps", "mbstd_group_size", "use_noise"),
        *("fmap_base", "fmap_max", "num_fp16_res", "conv_clamp", "architecture", "fused_modconv", "impl"),
        *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val", "dlatent_avg_beta"),
        *("style_mixing_prob", "randomize_noise", "structure", "freeze_layers", "mapping_func", "synthesis_func"),
    )
)
# Options with a single value that this trainer's networks stand for.
_FIXED: Mapping[str, Any] = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "resample_kernel": [1, 3, 3, 1],
    "normalize_latents": True,
    "fmap_decay": 1,
    "fmap_min": 1,
    "fmap_const": None,
    "mbstd_num_features": 1,
    "dtype": "float32",
    "use_pagan": False,
}


def _options(network: TensorFlowNetwork, architecture: str) -> dict[str, Any]:
    """Those given to the network, and to its components.

    Args:
        network: of the file.
        architecture: that its variables show.

    Raises:
        Refused: one that this trainer does not know, or that makes another network.
    """
    options: dict[str, Any] = {}
    for each in (network, *_components(network).values()):
        given = each.state.get("static_kwargs")
        if type(given) is not dict:
            raise Refused("a TensorFlow network in it has no options")
        for name, value in given.items():
            value = list(value) if type(value) is tuple else value
            if name in _FIXED and value is not None and not _same_value(value, _FIXED[name]):
                raise Refused(f"it has {name} {shown(value)}, expected {_FIXED[name]}")
            if name not in _FIXED and name not in _SHOWN:
                raise Refused(f"it has the option {shown(name)}, which this trainer does not know")
            if value is not None:
                options[name] = value
    said = options.get("architecture", architecture)
    if type(said) is not str or said != architecture:
        raise Refused(f"it has architecture {shown(said)}, but the variables of {architecture}")
    return options


def _same_value(value: Any, expected: Any) -> bool:
    if type(expected) is list:
        return type(value) is list and len(value) == len(expected) and all(map(_same_value, value, expected))
    return type(value) in (int, float, bool, str) and bool(value == expected)


def _multiplier(options: Mapping[str, Any], default: float) -> float:
    """Of the mapping's learning rate, relative to LR_MULTIPLIER."""
    value = options.get("mapping_lrmul", default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise Refused(f"it has mapping_lrmul {shown(value)}")
    return float(value) / LR_MULTIPLIER


def _rescale(state: dict[str, Tensor], multiplier: float) -> None:
    for name in state:
        if multiplier != 1 and re.fullmatch(r"mapping\.fc\d+\.(weight|bias)", name):
            state[name] = state[name] * multiplier


def _components(network: TensorFlowNetwork) -> dict[str, TensorFlowNetwork]:
    components = network.state.get("components")
    if components is None:
        return {}
    if type(components) is not dict or len(components) > MOST_COMPONENTS:
        raise Refused("its TensorFlow network has other components than a mapping and a synthesis")
    for name, component in components.items():
        if not isinstance(component, TensorFlowNetwork) or component.state.get("components"):
            raise Refused(f"the component {shown(name)} of its TensorFlow network is not a network without components")
    return components


def _variables(network: TensorFlowNetwork) -> _Values:
    """By name, those of the components under 'component/'."""
    version = network.state.get("version")
    if type(version) is not int or version < OLDEST:
        raise Refused(f"its version is {shown(version)}; StyleGAN2's is {OLDEST} or {ADA}, StyleGAN1 is not read")
    values = _own_variables(network)
    for name, component in _components(network).items():
        values |= {f"{name}/{inner}": array for inner, array in _own_variables(component).items()}
    return values


def _own_variables(network: TensorFlowNetwork) -> _Values:
    values: _Values = {}
    listed = network.state.get("variables")
    if type(listed) is not list or len(listed) > MOST_VARIABLES:
        raise Refused("its TensorFlow network has no variables, or more than any network")
    for name, array in listed:
        content = array.values if isinstance(array, Array) else array
        if type(content) in (int, float):
            content = np.array(content)
        if type(name) is not str or len(name) > LONGEST_NAME or not isinstance(content, np.ndarray):
            raise Refused("a TensorFlow variable in it is not an array")
        network.allowance.take()
        values[name] = content
    return values


def _without_noise(values: _Values) -> _Values:
    return {name: value for name, value in values.items() if not re.fullmatch(r"synthesis/noise\d+", name)}


def _renamed(values: _Values, names: tuple[tuple[str, str, _Turn], ...]) -> dict[str, Tensor]:
    state = {}
    distinct = {id(value.base if value.base is not None else value) for value in values.values()}
    if len(distinct) < len(values):
        raise Refused("two variables in it share their numbers")
    for name, value in values.items():
        if _STATE_OF_TRAINING.fullmatch(name):
            continue
        for theirs, ours, turn in names:
            if re.fullmatch(theirs, name):
                state[re.sub(theirs, ours, name)] = _tensor(value, turn)
                break
        else:
            raise Refused(f"it has the variable {shown(name)}, which this trainer's networks do not have")
    return state


def _tensor(value: np.ndarray, turn: _Turn) -> Tensor:
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused later
            return torch.from_numpy(np.array(turn(value), dtype=np.float32, order="C"))
    except (ValueError, IndexError) as error:
        raise Refused(f"a variable in it has the shape {list(value.shape)}") from error


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state or not state[name].shape:
        raise Refused(f"it has nothing that becomes {name}")
    return tuple(state[name].shape)
