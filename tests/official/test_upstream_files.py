"""Files of real checkouts: `python -m pytest -m upstream tests/official`, with these variables naming them:

    KD_STYLEGAN2_ADA   NVlabs/stylegan2-ada-pytorch at d72cc7d
    KD_DIFFAUGMENT     DiffAugment-stylegan2-pytorch in mit-han-lab/data-efficient-gans at 0b63395
    KD_STYLEGAN3       NVlabs/stylegan3 at c233a91

They need requests and psutil; a checkout that is not named is skipped. A few seconds each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.official.stand_in import small_networks, tensorflow_pickle
from training.checkpoint import Snapshot, load_snapshot
from training.networks.interface import Network
from training.official.read import ROLES, read_official
from training.official.write import write_official

pytestmark = pytest.mark.upstream

LOADS = """
    import pickle, sys
    sys.path[:0] = [sys.argv[1]]
    sys.path.append(sys.argv[5])
    from kd_plugin.hosts.repairs import mend
    mend()
    import numpy as np, torch
    import legacy
    with open(sys.argv[2], "rb") as file:
        networks = legacy.load_network_pkl(file)
    given = np.load(sys.argv[3])
    z, c = torch.from_numpy(given["z"]), torch.from_numpy(given["c"])
    images = networks["G_ema"](z, c, truncation_psi=0.7, noise_mode="const", force_fp32=True)
    logits = networks["D"](images, c, force_fp32=True)
    np.savez(sys.argv[4], images=images.numpy(), logits=logits.numpy())
"""


@pytest.fixture(params=["KD_STYLEGAN2_ADA", "KD_DIFFAUGMENT", "KD_STYLEGAN3"])
def checkout(request: pytest.FixtureRequest) -> Path:
    if request.param not in os.environ:
        pytest.skip(f"{request.param} names no checkout")
    return Path(os.environ[request.param])


def theirs(checkout: Path, network: Path, z: torch.Tensor, c: torch.Tensor) -> dict[str, torch.Tensor]:
    """Images of the official G_ema, and logits of the official D on them."""
    given, made = network.with_suffix(".in.npz"), network.with_suffix(".out.npz")
    np.savez(given, z=z.numpy(), c=c.numpy())
    root = Path(__file__).parents[2]
    command = [sys.executable, "-I", "-c", textwrap.dedent(LOADS), checkout, network, given, made, root]
    subprocess.run([str(word) for word in command], check=True)
    with np.load(made) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def assert_equal_to_theirs(checkout: Path, path: Path, networks: dict[str, Network], c_dim: int) -> None:
    z, c = torch.randn(4, 12), torch.eye(4)[:, :c_dim]
    expected = theirs(checkout, path, z, c)
    images = networks["G_ema"](z, c, truncation_psi=0.7, noise_mode="const", force_fp32=True)
    logits = networks["D"](expected["images"], c, force_fp32=True)
    assert (images - expected["images"]).abs().max() < 1e-4 * expected["images"].std()
    assert (logits - expected["logits"]).abs().max() < 1e-4 * expected["logits"].std()


@pytest.mark.parametrize("c_dim", [0, 3])
def test_ours_to_theirs_and_back(checkout: Path, tmp_path: Path, c_dim: int) -> None:
    networks = small_networks(c_dim, num_fp16_res=2, conv_clamp=256)
    path = tmp_path / "theirs.pkl"
    write_official(Snapshot(networks, {}), checkout, path)
    again = load_snapshot(path, roles=ROLES)
    for role, network in networks.items():
        assert again.networks[role].init_kwargs == network.init_kwargs
        for name, tensor in network.state_dict().items():
            assert torch.equal(again.networks[role].state_dict()[name], tensor), name
    assert_equal_to_theirs(checkout, path, networks, c_dim)


@pytest.mark.parametrize(("version", "c_dim"), [(4, 0), (5, 0), (5, 3)])
def test_tensorflow(checkout: Path, tmp_path: Path, version: int, c_dim: int) -> None:
    """The official reader of TensorFlow's files and ours agree."""
    path = tmp_path / "tensorflow.pkl"
    path.write_bytes(tensorflow_pickle(small_networks(c_dim), version))
    found, _ = read_official(path)
    assert_equal_to_theirs(checkout, path, found, c_dim)
