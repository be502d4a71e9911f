"""Recognising an official checkout by the hashes of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kd_plugin.errors import KDError

__all__ = ["ADDED", "CHECKOUTS", "Checkout", "file_hash", "recognise", "without_added"]

# What a patch adds to train.py (kd_plugin.hosts.patch): no part of the hashes.
ADDED = b"from kd_plugin.hosts.patched import extend; extend(__name__, __file__)  # by: python -m kd_plugin.hosts.patch"


@dataclass(frozen=True, eq=False)
class Checkout:
    """
    name:    of the repository.
    commit:  that the hashes belong to.
    files:   path -> SHA-256 of those that the launcher relies on, with \\n at the ends of lines and before a patch.
    returns: the function of train.py that returns the training options; None: `launch_training` receives them.
    """

    name: str
    commit: str
    files: Mapping[str, str]
    returns: str | None

    def differences(self, repo: Path) -> list[str]:
        """'training/loss.py is missing', '... differs'; empty for the commit that is known."""
        found = {path: file_hash(repo / path) for path in self.files}
        return [
            f"{path} {'is missing' if found[path] is None else 'differs'}"
            for path, expected in self.files.items()
            if found[path] != expected
        ]


_LOOP_OF_ADA = "0b589a731712c51791eb22efe0dc1ee6856bf3e9335920db02a3e38dee909eb3"

CHECKOUTS = (
    Checkout(
        "stylegan2-ada-pytorch",
        "d72cc7d",
        {
            "train.py": "269f2073481ab269560ff76d4a866ac98656a494884c3ad0edcf8cc99d9e4c24",
            "training/training_loop.py": _LOOP_OF_ADA,
            "training/loss.py": "1bd68d7dc1c92c1b78b91f193a45a433b1ff374614f91909ea8cb88eac7bc2d7",
        },
        returns="setup_training_loop_kwargs",
    ),
    Checkout(
        "DiffAugment-stylegan2-pytorch",
        "0b63395",
        {
            "train.py": "3515978b51a2fa675c5ab8f68665c34fdfd68c81f367afe21e9229a409139958",
            "training/training_loop.py": _LOOP_OF_ADA,
            "training/loss.py": "7972a46e9beb5af9c9287c5dee7e103e5d1c335b4c5273e469a382e0210a2ec8",
        },
        returns="setup_training_loop_kwargs",
    ),
    Checkout(
        "stylegan3",
        "c233a91",
        {
            "train.py": "bc3e0854d1788a6c907015c8d9513d97975a38370e0631ab885e6a83ab23910f",
            "training/training_loop.py": "85dc3b5b84f8dc6a17fab7f7ca3e155648b5097808630a11ca8b43f355eb2e48",
            "training/loss.py": "95cd1d2fb2db27b0c501d4913429ecc1bb21e50c090bab02044aa35c090a64ee",
        },
        returns=None,
    ),
    Checkout(
        "projected-gan",
        "e1c246b",
        {
            "train.py": "787f9eefd0321c308a06c3ad90b2e06da23c67d284a20559c336359ad59e1d24",
            "training/training_loop.py": "74a670eb80afe993b0830a8200f9894b50ffaeb26ce2f37f0206e518f18ec0c8",
            "training/loss.py": "17fb885a912d1f9f7ef8670483964ca5f943d8b2d24bf4c5b336bde4a68b3c2f",
        },
        returns=None,
    ),
)


def file_hash(path: Path) -> str | None:
    """SHA-256 as Checkout.files has it; None if the file cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha256(without_added(content).replace(b"\r", b"")).hexdigest()


def without_added(content: bytes) -> bytes:
    """The file as before it was patched."""
    return b"".join(line for line in content.splitlines(keepends=True) if line.rstrip(b"\r\n") != ADDED)


def recognise(repo: Path, force: bool = False) -> Checkout:
    """
    Args:
        repo: the folder that holds train.py.
        force: accept one that is edited, or another commit, as the most similar one.

    Raises:
        KDError: there is no train.py, or the checkout is not known; says what differs.
    """
    if not (repo / "train.py").is_file():
        raise KDError(f"--repo={repo}: there is no train.py; give the folder of the checkout that holds it")
    differences = {checkout: checkout.differences(repo) for checkout in CHECKOUTS}
    nearest = min(CHECKOUTS, key=lambda checkout: len(differences[checkout]))
    if not differences[nearest]:
        return nearest
    similar = len(differences[nearest]) < len(nearest.files)
    if not force:
        known = ", ".join(f"{checkout.name} ({checkout.commit})" for checkout in CHECKOUTS)
        what = (
            f"it is like {nearest.name} at {nearest.commit}, but {', '.join(differences[nearest])}; restore them, or "
            "use --force to run it as it is"
            if similar
            else f"it is none of the known checkouts: {known}; use the plug-in in its loop instead (README)"
        )
        raise KDError(f"--repo={repo}: {what}")
    return nearest if similar else _by_structure(repo)


def _by_structure(repo: Path) -> Checkout:
    """Of one in which every file differs: by what train.py contains."""
    text = (repo / "train.py").read_text(encoding="utf-8", errors="replace")
    ada, diffaugment, third, projected = CHECKOUTS
    if "def launch_training(" in text:
        return projected if "ProjectedGANLoss" in text else third
    if f"def {ada.returns}(" in text:
        return diffaugment if "DiffAugment" in text else ada
    raise KDError(
        f"--repo={repo}: train.py has neither {ada.returns} nor launch_training, which distillation is added to; use "
        "the plug-in in its loop instead (README)"
    )
