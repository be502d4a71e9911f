"""What a generator is given: latents of seeds, classes, truncation."""

from __future__ import annotations

import itertools
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.cli import MOST_SEEDS
from dnnlib.errors import UserError
from kd_plugin.config.ranges import AT_LEAST_0
from kd_plugin.config.schema import option
from kd_plugin.errors import nearest
from kd_plugin.file_kinds import what_it_is
from torch_utils.device import pick_device
from training.checkpoint import load_snapshot
from training.networks import GeneratorNetwork, model_of

__all__ = [
    "NetworkOptions",
    "Source",
    "TruncatedOptions",
    "class_indices",
    "class_option",
    "latents",
    "one_hot",
    "open_source",
    "psi_option",
    "read_ws",
    "require_w",
    "the_class",
    "the_psi",
    "truncations",
]

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The flags that every command has."""

    network: str = option(
        MISSING,
        "A network-snapshot-*.safetensors, an official .pkl, or the name of a published network",
        metavar="FILE|NAME",
        group="Network",
    )
    noise_mode: str = option("const", "Noise inputs", choices=("const", "random", "none"))
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class TruncatedOptions(NetworkOptions):
    """And those of commands that truncate."""

    trunc_cutoff: int | None = option(
        None, "Truncate only the first N layers", AT_LEAST_0, metavar="N", shown_default="all"
    )


def class_option(help: str = "Class of a conditional network", metavar: str = "NAME|INDEX") -> Any:
    """The flag --class."""
    return option(None, help, key="class", metavar=metavar, shown_default="none")


def psi_option() -> Any:
    """The flag --trunc of a command that takes one number."""
    return option("1", "Truncation psi", metavar="PSI")


@dataclass(frozen=True)
class Source:
    """A generator, on its device.

    Attributes:
        class_names: [] if the classes have no names.
        config: of the run that trained it; None of official networks.
    """

    G: GeneratorNetwork
    class_names: Sequence[str]
    device: torch.device
    config: Mapping[str, Any] | None

    def class_name(self, index: int | None) -> str | int | None:
        return self.class_names[index] if index is not None and self.class_names else index

    def label(self, index: int | None) -> Tensor:
        """[1, c_dim]."""
        return one_hot(self.G, index).to(self.device)

    def z(self, seeds: Sequence[int]) -> Tensor:
        """[N, z_dim]."""
        return latents(seeds, self.G.z_dim).to(self.device)


def open_source(options: NetworkOptions) -> Source:
    """
    Raises:
        UserError: no such device; the file is missing or no network; more truncated layers than it has.
    """
    device = pick_device(options.device)
    snapshot = load_snapshot(options.network, device)
    G: Any = snapshot.G_ema
    cutoff = options.trunc_cutoff if isinstance(options, TruncatedOptions) else None
    if G.has_w and (cutoff or 0) > G.num_ws:
        raise UserError(f"--trunc-cutoff: {cutoff} was given, the network has {G.num_ws} layers")
    return Source(G, snapshot.meta.get("class_names") or [], device, snapshot.meta.get("config"))


def require_w(G: GeneratorNetwork, what: str) -> None:
    """
    Raises:
        UserError: the network has no intermediate latent w, which `what` needs.
    """
    if not G.has_w:
        raise UserError(f"{what}: needs a network with an intermediate latent w; {model_of(G)} has none")


def latents(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z [len(seeds), z_dim], drawn by numpy as in the official tools: a seed gives the same z there, on any device."""
    z = np.concatenate([np.random.RandomState(seed).randn(1, z_dim) for seed in seeds])
    return torch.from_numpy(z).float()


def one_hot(G: GeneratorNetwork, index: int | None) -> Tensor:
    """The label [1, c_dim] of a class."""
    if index is None:
        return torch.zeros([1, 0])
    return torch.nn.functional.one_hot(torch.tensor([index]), G.c_dim).float()


def class_indices(G: GeneratorNetwork, given: str | None, names: Sequence[str]) -> list[int | None]:
    """The classes that --class names, by name or index: 'cat', '3', 'cat,3', 'all'; [None] without labels.

    Raises:
        UserError: there is none of this name or index; none was given to a conditional network, or one to another.
    """
    if G.c_dim == 0:
        if given is not None:
            raise UserError(f"--class: {given} was given, but the network was trained without labels")
        return [None]
    if given == ALL and given not in names:
        return list(range(G.c_dim))
    if given is None or given in names:  # a name may have a comma
        return [_class_index(G, given, names)]
    return list(dict.fromkeys(_class_index(G, part.strip(), names) for part in given.split(",")))


def the_class(G: GeneratorNetwork, given: str | None, names: Sequence[str]) -> int | None:
    """The one class that --class names.

    Raises:
        UserError: see `class_indices`; several.
    """
    found = class_indices(G, given, names)
    if len(found) > 1:
        raise UserError(f"--class: {given} was given, one class is taken here")
    return found[0]


def _class_index(G: GeneratorNetwork, given: str | None, names: Sequence[str]) -> int:
    if given is not None and given in names:
        return list(names).index(given)
    if given is not None and given.isascii() and given.isdecimal() and int(given) < G.c_dim:
        return int(given)
    shown = [f"{index} {name}" for index, name in enumerate(itertools.islice(names, 20))]
    known = f" ({', '.join(shown)}{', ...' if len(names) > len(shown) else ''})" if names else ""
    came = "nothing" if given is None else given
    close = nearest(given, names, exhaustive=False) if given else ""
    raise UserError(f"--class: {came} was given{close}; the network is conditional, give 0 to {G.c_dim - 1}{known}")


def truncations(text: str) -> list[float]:
    """'0.5,0.7,1' -> the numbers, each once.

    Raises:
        UserError: something else.
    """
    found = []
    for part in text.split(","):
        try:
            psi = float(part)
        except ValueError:
            psi = math.nan
        if not math.isfinite(psi):
            raise UserError(f"--trunc: '{part.strip()}' is not a number; give e.g. 0.7, or 0.5,0.7,1 for several")
        found.append(psi)
    return list(dict.fromkeys(found))


def the_psi(text: str) -> float:
    """
    Raises:
        UserError: not one number.
    """
    found = truncations(text)
    if len(found) > 1:
        raise UserError(f"--trunc: {text} was given, one number is taken here")
    return found[0]


def read_ws(path: str, network: GeneratorNetwork, device: torch.device) -> Tensor:
    """w [N, num_ws, w_dim] from the array 'w' of an .npz, as `project` and the official projector write it; its axis
    of layers may have length 1.

    Raises:
        UserError: another file, or of another network.
    """
    require_w(network, "--projected-w")
    G: Any = network
    file = Path(path)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            ws = arrays["w"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        missing = "" if os.path.isfile(file) else " (it does not exist)"
        raise UserError(
            f"--projected-w: '{path}' cannot be read as an .npz with an array 'w'{missing}{what_it_is(file)}"
        ) from error
    num_ws, w_dim = G.num_ws, G.w_dim
    if ws.dtype.kind != "f" or ws.ndim != 3 or ws.shape[1] not in (1, num_ws) or ws.shape[2] != w_dim:
        raise UserError(
            f"--projected-w: 'w' in '{path}' is {ws.dtype} {list(ws.shape)}, this network takes [N, {num_ws}, {w_dim}]"
        )
    if not 0 < len(ws) <= MOST_SEEDS or not np.isfinite(ws).all():
        raise UserError(f"--projected-w: 'w' in '{path}' has no rows, too many, or numbers that are not finite")
    return torch.from_numpy(ws).float().to(device).expand(-1, num_ws, -1)
