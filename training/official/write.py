"""Our networks as a pickle that the official programs load, made by a checkout's own classes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.checkpoint import Snapshot, save_snapshot
from training.networks import model_of
from training.official.read import ROLES

__all__ = ["require_checkout", "write_official"]

_CHILD = Path(__file__).with_name("child.py")
_ROOT = Path(__file__).parents[2]


def write_official(snapshot: Snapshot, checkout: Path, out: Path) -> None:
    """
    Args:
        snapshot: with G, D and G_ema.
        checkout: a folder of stylegan2-ada-pytorch, of its DiffAugment fork, or of stylegan3, which this runs.
        out: the pickle.

    Raises:
        UserError: the networks are no StyleGAN2; the folder is no checkout, or its code fails.
        OSError: the file cannot be written.
    """
    if (model := model_of(snapshot.G_ema)) != "stylegan2":
        raise UserError(f"--to=official: the official programs have no {model}, only StyleGAN2")
    require_checkout(checkout)

    def run(partial: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            ours = Path(folder) / "networks.safetensors"
            save_snapshot(ours, {role: snapshot.networks[role] for role in ROLES}, {})
            command = [sys.executable, "-I", *map(str, (_CHILD, checkout.resolve(), ours, partial.resolve(), _ROOT))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise UserError(f"--repo: the code in '{checkout}' failed: {last[0]}")

    write_atomic(out, run)


def require_checkout(folder: Path) -> None:
    """
    Raises:
        UserError: it is none of the three.
    """
    needed = (folder / "torch_utils" / "persistence.py", folder / "dnnlib" / "util.py")
    networks = [folder / "training" / name for name in ("networks.py", "networks_stylegan2.py")]
    if not all(path.is_file() for path in needed) or not any(path.is_file() for path in networks):
        raise UserError(
            f"--repo: '{folder}' is no checkout of stylegan2-ada-pytorch, DiffAugment-stylegan2-pytorch or stylegan3"
        )
