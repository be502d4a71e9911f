"""Files of a run: snapshots of the networks, and the state that continues the run.

A snapshot (.safetensors) holds tensors named `G_ema.<official name>`, `G...`, `D...` and, as JSON in its header, what
is needed to build the networks again. The state (.pt) holds everything else *and* the weights: it is replaced in one
rename, so that at any moment one whole state is on disk. Neither file runs code when it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from dnnlib.errors import UserError
from dnnlib.files import files_by_kimg, write_atomic
from kd_plugin.errors import first_line
from kd_plugin.file_kinds import what_it_is
from kd_plugin.files import DAMAGED
from training.failures import explained
from training.networks import MODELS, GeneratorNetwork, Model, Network, model_of
from training.official.published import is_published, local_file, meant
from training.official.read import is_pickle, read_official

__all__ = [
    "SNAPSHOTS",
    "Snapshot",
    "delete_old_snapshots",
    "load_snapshot",
    "load_state",
    "runs_with_state",
    "save_snapshot",
    "save_state",
]

SNAPSHOTS = ("network-snapshot-", ".safetensors")  # around the kimg
STATE_NAME = "training-state.pt"
_HEADER = "kd_plugin"
_FORMAT = 1
_STATE_FORMAT = 3
_FIRST_MODEL = "stylegan2"  # of files that do not name theirs


@dataclass(frozen=True)
class Snapshot:
    """Networks read from disk, in eval mode and without gradients. `meta` is the header: config, kimg, ..."""

    networks: Mapping[str, Network]
    meta: dict[str, Any]

    @property
    def G_ema(self) -> GeneratorNetwork:
        network = self.networks["G_ema"]
        assert isinstance(network, GeneratorNetwork)
        return network


def save_snapshot(path: Path, networks: Mapping[str, Network], meta: Mapping[str, Any]) -> None:
    """Writes `networks` (among G, D, G_ema), their constructor arguments, and `meta` (JSON-ready)."""
    tensors = {
        f"{role}.{name}": tensor.detach().cpu().contiguous()
        for role, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    header = {
        "format": _FORMAT,
        "model": model_of(next(iter(networks.values()))),
        "networks": {role: network.init_kwargs for role, network in networks.items()},
        **meta,
    }
    content = safetensors.torch.save(tensors, metadata={_HEADER: json.dumps(header)})
    write_atomic(path, content)


def load_snapshot(
    path: Path | str,
    device: torch.device | str = "cpu",
    roles: Iterable[str] | None = ("G_ema",),
    flag: str = "--network",
) -> Snapshot:
    """Builds the networks of a snapshot, of an official pickle, or of a published network by its name.

    Args:
        path: the file, a name in `PUBLISHED`, or an address.
        device: where the networks shall be.
        roles: which networks, among G, D and G_ema; None: all that it holds.
        flag: for messages.

    Raises:
        UserError: the file is missing, damaged, no snapshot, or lacks one of `roles`; names `flag`.
    """
    path = _file(path, flag)
    if is_pickle(path):
        networks, meta = read_official(path, roles, flag)
        return Snapshot({role: network.to(device) for role, network in networks.items()}, meta)
    return _load_ours(path, device, roles, flag)


def _file(path: Path | str, flag: str) -> Path:
    if is_published(str(path)) and not os.path.exists(path):
        path = local_file(str(path), flag)
    if not os.path.isfile(path):  # unlike Path's, never an error
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise UserError(
            f"{flag}: '{path}' {problem}; give a network-snapshot-*.safetensors file, an official .pkl or the name of "
            f"a published network{what_it_is(Path(path))}{meant(str(path))}"
        )
    return Path(path)


def _load_ours(path: Path, device: torch.device | str, roles: Iterable[str] | None, flag: str) -> Snapshot:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = (file.metadata() or {}).get(_HEADER)
            if header is None:
                came = what_it_is(path)
                raise UserError(f"{flag}: '{path}' is a safetensors file, but not a snapshot of this trainer{came}")
            meta = json.loads(header)
            if meta["format"] != _FORMAT:
                raise UserError(
                    f"{flag}: '{path}' was written by a later version (format {meta['format']}; this one reads "
                    f"{_FORMAT})"
                )
            networks, model = {}, _model(meta, path, flag)
            for role in meta["networks"] if roles is None else roles:
                if role not in meta["networks"]:
                    held = ", ".join(meta["networks"])
                    raise UserError(f"{flag}: '{path}' holds {held}, but not {role}")
                network = (model.discriminator if role == "D" else model.generator)(**meta["networks"][role])
                prefix = f"{role}."
                state = {key[len(prefix) :]: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
                network.load_state_dict(state)
                if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
                    raise UserError(
                        f"{flag}: the weights of {role} in '{path}' are not finite; give an earlier snapshot"
                    )
                networks[role] = network.to(device).eval().requires_grad_(False)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{flag}: '{path}' cannot be read as a snapshot: {first_line(error)}{what_it_is(path)}"
        ) from error
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, AssertionError, RuntimeError) as error:
        if explained(error, ()):  # not enough memory
            raise
        raise UserError(f"{flag}: the header of the snapshot '{path}' is damaged ({first_line(error)})") from error
    return Snapshot(networks, meta)


def _model(meta: Mapping[str, Any], path: Path, flag: str) -> Model:
    name = meta.get("model", _FIRST_MODEL)
    if name not in MODELS:
        raise UserError(
            f"{flag}: the architecture of '{path}', '{name}', is none of this trainer's ({', '.join(MODELS)}); import "
            "the code that registers it (for a command: --kd-import=FILE.py)"
        )
    return MODELS[name]


def save_state(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Replaces the run's state; readable by `torch.load(..., weights_only=True)`."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # of an open file torch reports why it cannot write
            torch.save({"format": _STATE_FORMAT, **state}, file)

    write_atomic(run_dir / STATE_NAME, write)


def load_state(run_dir: Path) -> dict[str, Any]:
    """The state of a run, on the CPU.

    Raises:
        UserError: a file that is missing, damaged, or of another version.
    """
    path = run_dir / STATE_NAME
    if not path.is_file():
        came = what_it_is(run_dir) or "; the run was stopped before its first save"
        raise UserError(f"--resume: there is no {STATE_NAME} in '{run_dir}'{came}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise UserError(f"--resume: '{path}' cannot be read: {first_line(error)}{what_it_is(path)}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"--resume: '{path}' is not the state of a run; it was saved by another program")
    if state["format"] == 2:
        state = _from_format_2(state)
    if state.get("format") != _STATE_FORMAT:
        raise UserError(
            f"--resume: '{path}' was written by another version (format {state.get('format')}, this one reads "
            f"{_STATE_FORMAT}); start a new run from its snapshot: --resume=network-snapshot-*.safetensors"
        )
    return state


def _from_format_2(state: dict[str, Any]) -> dict[str, Any]:
    """Version 0.1: parts stood at the top level, those that a run did not have as None."""
    parts = {"progress": {name: state[name] for name in ("nimg", "tick", "warm")}, "variety": state["variety"]}
    parts |= state["networks"]
    parts |= {f"optimizer.{phase}": value for phase, value in state["optimizers"].items()}
    if state["pl_mean"]:
        parts["path_length"] = {"mean_length": state["pl_mean"][0]}
    optional = {"overfitting": "overfit", "ada": "ada", "lecam": "lecam", "kd": "kd"}
    parts |= {name: state[old] for name, old in optional.items() if state[old] is not None}
    return {"format": 3, "parts": parts, **{name: state[name] for name in ("config", "dataset", "teacher")}}


def delete_old_snapshots(run_dir: Path, keep: int) -> None:
    """Delete all except the newest `keep`; the best one, under its own name, stays."""
    for path in list(files_by_kimg(run_dir, *SNAPSHOTS).values())[:-keep]:
        path.unlink()


def runs_with_state(outdir: Path) -> list[Path]:
    """The run folders `NNNNN-...` in `outdir` that can be continued, newest first."""
    runs = [path.parent for path in outdir.glob(f"[0-9][0-9][0-9][0-9][0-9]*/{STATE_NAME}")]
    return sorted(runs, key=lambda folder: folder.name, reverse=True)
