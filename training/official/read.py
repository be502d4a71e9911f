"""The networks of an official pickle, as this trainer's. Nothing in the file is executed: see machine.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.file_kinds import what_it_is
from torch_utils.ops.upfirdn2d import setup_filter
from training.networks.interface import Network
from training.networks.stylegan2 import Discriminator, Generator
from training.networks.stylegan2.discriminator import ARCHITECTURES
from training.networks.stylegan2.layers import RESAMPLE_TAPS
from training.official import pytorch, tensorflow
from training.official.contents import Part, TensorFlowNetwork, read_pickle
from training.official.machine import Refused, shown

__all__ = ["ROLES", "is_pickle", "read_official"]

ROLES = ("G", "D", "G_ema")
MOST_BYTES = 2 << 30  # the largest official file has 0.4 GB
MOST_OPTIONS = 30
_CARRIED = (str, int, float, bool, type(None))  # of the options of their data set
FILTERS = 1 << 20  # bytes of low-pass filters, which TensorFlow's files do not hold
_BOUNDS = {
    "z_dim": (1, 1 << 14),
    "w_dim": (1, 1 << 14),
    "c_dim": (0, 1 << 20),
    "img_channels": (1, 64),
    "img_resolution": (4, 1 << 13),
    "mapping_layers": (0, 64),
    "channel_base": (1, 1 << 24),
    "channel_max": (1, 1 << 14),
    "num_fp16_res": (0, 16),
    "mbstd_group_size": (1, pytorch.WHOLE_BATCH),
}


def is_pickle(path: Path | str) -> bool:
    """Whether the file starts as a pickle does."""
    with Path(path).open("rb") as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def read_official(
    path: Path | str, roles: Iterable[str] | None = None, flag: str = "--network"
) -> tuple[dict[str, Network], dict[str, Any]]:
    """Networks of stylegan2-ada-pytorch, its DiffAugment fork, stylegan3 (StyleGAN2 configuration), and of the
    TensorFlow releases of StyleGAN2 and StyleGAN2-ADA.

    Args:
        path: of the pickle.
        roles: which networks, among G, D and G_ema; None: all that it holds, but for a G or D that this trainer's
            networks cannot stand for, which `meta["source"]["left_out"]` names with the reason.
        flag: for messages.

    Returns:
        The networks, on the CPU, in eval mode and without gradients; and where they come from, JSON-ready.

    Raises:
        UserError: the file is not such a pickle, or is refused; says why.
    """
    path = Path(path)
    try:
        return _read(path, roles)
    except Refused as refusal:
        raise UserError(f"{flag}: the pickle '{path}' was not read: {refusal}") from refusal
    except OSError:
        raise
    except Exception as error:  # whatever a file can do to this reader is a reason to refuse the file
        raise UserError(f"{flag}: the pickle '{path}' was not read: it is damaged ({type(error).__name__})") from error


def _read(path: Path, roles: Iterable[str] | None) -> tuple[dict[str, Network], dict[str, Any]]:
    found, meta = _content(path)
    for role in ("G_ema",) if roles is None else roles:
        if role not in found:
            raise Refused(f"it holds {', '.join(found)}, but not {role}" if found else "it holds no networks")
    networks: dict[str, Network] = {}
    for role in found if roles is None else roles:
        try:
            networks[role] = _network(role, found[role], path.stat().st_size)
        except Refused as refusal:
            if roles is not None or role == "G_ema":
                raise
            meta["source"].setdefault("left_out", {})[role] = str(refusal)
    return networks, meta


def _content(path: Path) -> tuple[dict[str, Part | TensorFlowNetwork], dict[str, Any]]:
    """What stands for each network, and where they come from."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise Refused(f"it has {size / 1e9:.1f} GB, the largest official file has 0.4")
    with path.open("rb") as file:
        content = read_pickle(file, size)
    if isinstance(content, tuple) and len(content) == 3 and all(isinstance(x, TensorFlowNetwork) for x in content):
        version = shown(content[0].state.get("version"))
        return dict(zip(ROLES, content, strict=True)), {"source": {"format": f"TensorFlow, version {version}"}}
    if not isinstance(content, dict):
        raise Refused(f"it holds no networks, but a value of the type {type(content).__name__}{what_it_is(path)}")
    found = {role: content[role] for role in ROLES if isinstance(content.get(role), Part)}
    return found, _origin(content)


def _origin(content: Mapping[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = {"format": "PyTorch"}
    data = content.get("training_set_kwargs")
    if isinstance(data, dict):
        values = [(name, value) for name, value in data.items() if type(value) in _CARRIED][:MOST_OPTIONS]
        source["data"] = {shown(name): shown(value) if type(value) is str else value for name, value in values}
    pipe = content.get("augment_pipe")
    p = pipe.tensors().get("p") if isinstance(pipe, Part) else None
    augmented = {} if p is None or p.numel() != 1 else {"augment_p": float(p)}
    return {"source": source, **augmented}


def _network(role: str, saved: Part | TensorFlowNetwork, size: int) -> Network:
    """
    Args:
        role: of the network.
        saved: what stands for it in a file of `size` bytes.

    Raises:
        Refused: this trainer has no such network.
    """
    module: Any = pytorch if isinstance(saved, Part) else tensorflow
    kind: type[Network] = Discriminator if role == "D" else Generator
    arguments, state = (module.discriminator if role == "D" else module.generator)(saved)
    _check_arguments(role, arguments)
    try:
        with torch.device("meta"):  # shapes only: what the file asks for might not fit into memory
            network = kind(**arguments)
    except (ValueError, RuntimeError, UserError) as error:
        raise Refused(f"its {role} cannot be built ({shown(str(error))})") from error
    if isinstance(saved, Part):
        pytorch.compare(saved, network)
    expected = network.state_dict()
    if sum(tensor.numel() for tensor in expected.values()) * 4 > size + FILTERS:
        raise Refused(f"its {role} has more weights than the file has room for")
    network.load_state_dict(_fitting(state, expected), assign=True)
    return network.eval().requires_grad_(False)


def _check_arguments(role: str, arguments: Mapping[str, Any]) -> None:
    """
    Raises:
        Refused: an argument that is of another type, or out of any use.
    """
    for name, value in arguments.items():
        if name == "conv_clamp":
            right = value is None or (type(value) in (int, float) and 0 < value < math.inf)
        elif name == "use_noise":
            right = type(value) is bool
        elif name == "architecture":
            right = type(value) is str and value in ARCHITECTURES
        else:
            low, high = _BOUNDS[name]
            right = type(value) is int and low <= value <= high
        if not right:
            raise Refused(f"its {role} has {name} {shown(value)}, which no official network has")


def _fitting(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state, if it is what a network with the state `expected` takes; low-pass filters are added.

    Raises:
        Refused: a tensor too many, too few, of another shape or not finite.
    """
    filters = {name: setup_filter(RESAMPLE_TAPS) for name in expected if name.endswith("resample_filter")}
    state = {**filters, **state}  # those of TensorFlow's networks are no variables
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    for names, what in ((missing, "lacks"), (extra, "has")):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise Refused(f"it {what} {shown(names[0])}{others}, other than this trainer's networks")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise Refused(f"{name} has shape {list(tensor.shape)}, here {list(expected[name].shape)}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise Refused(f"{name} holds what is not a finite number")
    return {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in state.items()}
