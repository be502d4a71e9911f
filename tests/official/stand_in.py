"""Pickles with the layout of the official ones, written from our networks; and raw pickles, operation by operation."""

from __future__ import annotations

import pickle
import struct
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from training.networks.interface import Network
from training.networks.stylegan2 import Discriminator, Generator
from training.networks.stylegan2.discriminator import DiscriminatorEpilogue
from training.networks.stylegan2.synthesis import SynthesisBlock, SynthesisLayer

SMALL: dict[str, Any] = {"channel_base": 128, "channel_max": 16}
NOT_RUN = "raise SystemExit('the source in the pickle was executed')"


def small_networks(c_dim: int = 0, **options: Any) -> dict[str, Network]:
    """G, D and G_ema with weights unlike those that they start with."""
    common = {"c_dim": c_dim, "img_resolution": 16, "img_channels": 3, **SMALL}
    arguments = {"z_dim": 12, "w_dim": 10, "mapping_layers": 2, **common, **options}
    made: dict[str, Network] = {
        "G": Generator(**arguments),
        "D": Discriminator(**common),
        "G_ema": Generator(**arguments),
    }
    for network in made.values():
        network.eval().requires_grad_(False)
        for name, tensor in network.state_dict().items():
            if "resample_filter" not in name:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return made


class _Saved:
    """Pickled as the official code pickles a module: one call of `_reconstruct_persistent_obj`."""

    def __init__(self, kind: str, state: Mapping[str, Any]) -> None:
        self.kind, self.state = kind, dict(state)

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": NOT_RUN,
            "class_name": self.kind,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def saved(module: nn.Module, extra: Mapping[str, Any] | None = None) -> _Saved:
    modules = {name: saved(child) for name, child in module.named_children()}
    attributes: dict[str, Any] = {"scalar": np.float64(0.5)}
    if hasattr(module, "activation") or isinstance(module, SynthesisLayer):
        attributes["activation"] = getattr(module, "activation", "lrelu")
    if hasattr(module, "weight_gain"):
        attributes["weight_gain"] = np.float64(module.weight_gain)  # type: ignore[arg-type]
    for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "use_noise", "conv_clamp", "bias_gain"):
        if hasattr(module, name):
            attributes[name] = getattr(module, name)
    if isinstance(module, SynthesisBlock):
        attributes["architecture"] = "skip"
    if hasattr(module, "dtype"):
        attributes["use_fp16"] = module.dtype == torch.float16
    if isinstance(module, DiscriminatorEpilogue):
        attributes["architecture"] = "resnet"
        modules["mbstd"] = _Saved("MinibatchStdLayer", {"group_size": module.mbstd_group_size, "num_channels": 1})
    return _Saved(
        type(module).__name__,
        {
            "training": False,
            "_parameters": dict(module._parameters),
            "_buffers": dict(module._buffers),
            "_non_persistent_buffers_set": {"a", "b"},
            "_backward_hooks": sys.modules["collections"].OrderedDict(),
            "_modules": modules,
            **attributes,
            **(extra or {}),
        },
    )


def as_official(network: Network) -> _Saved:
    """With the arguments of the official class."""
    ours = dict(network.init_kwargs)
    limits = {name: ours[name] for name in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")}
    if isinstance(network, Generator):
        limits = {"synthesis_kwargs": limits, "mapping_kwargs": {"num_layers": ours["mapping_layers"]}}
    arguments = sys.modules["dnnlib.util"].EasyDict(limits)
    return saved(network, {"_init_args": (), "_init_kwargs": arguments})


def official_pickle(networks: Mapping[str, Network], protocol: int = 4, **more: Any) -> bytes:
    """As a snapshot of the official PyTorch code."""
    with official_modules():
        data = sys.modules["dnnlib.util"].EasyDict(class_name="training.dataset.ImageFolderDataset", path="cats.zip")
        content = {"training_set_kwargs": data, **{role: as_official(network) for role, network in networks.items()}}
        return pickle.dumps({**content, "augment_pipe": None, **more}, protocol=protocol)


def tensorflow_pickle(networks: Mapping[str, Network], version: int = 5) -> bytes:
    """As a snapshot of the TensorFlow code."""
    with official_modules():
        parts = tuple(_tensorflow(networks[role], version) for role in ("G", "D", "G_ema"))
        return pickle.dumps(parts, protocol=4)


def _tensorflow(network: Network, version: int) -> Any:
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items() if "resample_filter" not in name}
    options = {
        "fmap_base": SMALL["channel_base"] // 2,
        "fmap_max": SMALL["channel_max"],
        "label_size": network.c_dim,
        "resolution": network.img_resolution,
        "num_channels": network.img_channels,
    }
    if isinstance(network, Generator):
        layers = network.init_kwargs["mapping_layers"]
        options |= {"latent_size": network.z_dim, "dlatent_size": network.w_dim, "mapping_fmaps": network.w_dim}
        options["mapping_layers"] = layers
        variables = {"dlatent_avg": state.pop("mapping.w_avg")}
        parts: dict[str, dict[str, Any]] = {"synthesis": {}, "mapping": {}}
        for name, value in state.items():
            where, _, rest = name.partition(".")
            theirs, values = (_mapping if where == "mapping" else _synthesis)(rest.split("."), value)
            parts[where][theirs] = values
        components = {name: _network({}, values, {}, version) for name, values in parts.items()}
        return _network(options, variables, components, version)
    variables = dict(_judging(name.split("."), value) for name, value in state.items())
    for name in [name for name in variables if name.startswith("Mapping")]:
        variables[name] = variables[name] / 10  # their multiplier of the learning rate is ten times ours
    options |= {"mbstd_group_size": 4, "mapping_layers": 8 if network.c_dim else 0}
    return _network(options, variables, {}, version)


def _mapping(name: list[str], value: np.ndarray) -> tuple[str, np.ndarray]:
    layer = "LabelEmbed" if name[0] == "embed" else f"Dense{name[0][2:]}"
    return f"{layer}/{name[1]}", value.T if name[1] == "weight" else value


def _synthesis(name: list[str], value: np.ndarray) -> tuple[str, np.ndarray]:
    side, layer, *rest = int(name[0][1:]), name[1], *name[2:]
    if layer == "const":
        return "4x4/Const/const", value[None]
    names = {"conv0": "Conv0_up", "conv1": "Conv" if side == 4 else "Conv1", "torgb": "ToRGB"}
    index = 2 * (side.bit_length() - 1) - (5 if layer == "conv0" else 4)
    where = f"{side}x{side}/{names[layer]}"
    if rest == ["noise_const"]:
        return f"noise{index}", value[None, None]
    if rest == ["weight"]:
        kernel = value.transpose(2, 3, 1, 0)
        return f"{where}/weight", kernel[::-1, ::-1] if layer == "conv0" else kernel
    if rest[0] == "affine":
        return f"{where}/mod_{rest[1]}", value.T if rest[1] == "weight" else value - 1
    return f"{where}/{rest[0]}", value


def _judging(name: list[str], value: np.ndarray) -> tuple[str, np.ndarray]:
    if name[0] == "mapping":
        layer = "LabelEmbed" if name[1] == "embed" else f"Mapping{name[1][2:]}"
        return f"{layer}/{name[2]}", value.T if name[2] == "weight" else value
    side, layer, kind = name[0][1:], name[1], name[2]
    if layer in ("fc", "out"):
        where = "4x4/Dense0" if layer == "fc" else "Output"
        return f"{where}/{kind}", value.T if kind == "weight" else value
    names = {"fromrgb": "FromRGB", "conv": "Conv", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"}
    return f"{side}x{side}/{names[layer]}/{kind}", value.transpose(2, 3, 1, 0) if kind == "weight" else value


def _network(options: Any, variables: Mapping[str, Any], components: Any, version: int) -> Any:
    network = sys.modules["dnnlib.tflib.network"].Network()
    network.__dict__ |= {
        "version": version,
        "name": "network",
        "static_kwargs": options,
        "components": components,
        "build_module_src": NOT_RUN,
        "build_func_name": "main",
        "variables": list(variables.items()),
    }
    return network


@contextmanager
def official_modules() -> Iterator[None]:
    """While they are there, their functions and classes can be pickled by their official names."""

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("the pickle was executed")

    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    network = type("Network", (), {"__module__": "dnnlib.tflib.network"})
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    contents: dict[str, dict[str, Any]] = {
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
        "dnnlib.util": {"EasyDict": easy},
        "dnnlib.tflib": {},
        "dnnlib.tflib.network": {"Network": network},
    }
    for name, members in contents.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(members)
    try:
        yield
    finally:
        for name in contents:
            del sys.modules[name]


# Raw operations.


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def data(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def whole(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."
