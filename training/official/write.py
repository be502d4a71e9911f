"""Our networks as a pickle that the official programs load, made by a checkout's own classes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.checkpoint import Snapshot, save_snapshot
from training.networks import model_of
from training.official.pytorch import WHOLE_BATCH
from training.official.read import ROLES

__all__ = ["require_checkout", "write_official"]

_CHILD = Path(__file__).with_name("child.py")
_ROOT = Path(__file__).parents[2]
_FIRST, _MODERN = "networks.py", "networks_stylegan2.py"  # where the classes are, in stylegan2-ada and stylegan3


def write_official(snapshot: Snapshot, checkout: Path, out: Path) -> None:
    """
    Args:
        snapshot: with G, D and G_ema.
        checkout: see `require_checkout`; its code is run.
        out: the pickle.

    Raises:
        UserError: the networks are no StyleGAN2, or the checkout's code fails.
        OSError: the file cannot be written.
    """
    if (model := model_of(snapshot.G_ema)) != "stylegan2":
        raise UserError(f"--to=official: the official programs have no {model}, only StyleGAN2")
    modern = (checkout / "training" / _MODERN).is_file()
    official = {
        "module": f"training.{(_MODERN if modern else _FIRST).removesuffix('.py')}",
        "networks": {role: _arguments(role, snapshot.networks[role].init_kwargs, modern) for role in ROLES},
    }

    def run(partial: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "networks.safetensors"
            save_snapshot(weights, {role: snapshot.networks[role] for role in ROLES}, {"official": official})
            words = (_CHILD, checkout.resolve(), weights, partial.resolve(), _ROOT)
            command = [sys.executable, "-I", *map(str, words)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise UserError(f"--repo: the code in '{checkout}' failed: {last[0]}")

    write_atomic(out, run)


def _arguments(role: str, known: Mapping[str, Any], modern: bool) -> dict[str, Any]:
    """Of the official class.

    Args:
        role: G, D or G_ema.
        known: arguments of this trainer's class.
        modern: as stylegan3 has them: a generator takes the arguments of its synthesis beside the others.
    """
    limits = {name: known[name] for name in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")}
    images = {name: known[name] for name in ("c_dim", "img_resolution", "img_channels")}
    if role == "D":
        group = known["mbstd_group_size"]
        return {
            **images,
            **limits,
            "architecture": known["architecture"],
            "mapping_kwargs": {"num_layers": known["mapping_layers"]},
            "epilogue_kwargs": {"mbstd_group_size": None if group == WHOLE_BATCH else group},
        }
    synthesis = {**limits, "use_noise": known["use_noise"]}
    return {
        **images,
        **{name: known[name] for name in ("z_dim", "w_dim")},
        "mapping_kwargs": {"num_layers": known["mapping_layers"]},
        **(synthesis if modern else {"synthesis_kwargs": synthesis}),
    }


def require_checkout(folder: Path) -> None:
    """
    Raises:
        UserError: it is neither stylegan2-ada-pytorch, nor its DiffAugment fork, nor stylegan3.
    """
    needed = (folder / "torch_utils" / "persistence.py", folder / "dnnlib" / "util.py")
    networks = [folder / "training" / name for name in (_FIRST, _MODERN)]
    if not all(path.is_file() for path in needed) or not any(path.is_file() for path in networks):
        raise UserError(
            f"--repo: '{folder}' is no checkout of stylegan2-ada-pytorch, DiffAugment-stylegan2-pytorch or stylegan3"
        )
