"""The official 32-pixel conditional networks, with their weights and numbers, and a smaller pair to play with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.networks.stylegan2 import Discriminator, Generator

DATA = Path(__file__).parents[1] / "data/sg2"
WIDTHS = {"channel_base": 1024, "channel_max": 64}


def read(name: str) -> dict[str, Tensor]:
    """The numeric arrays of a golden file, as tensors."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind == "f"}


@pytest.fixture(scope="session")
def weights() -> dict[str, dict[str, Tensor]]:
    """ "G" and "D": the official state_dicts."""
    return {role: read(f"sg2_32_cond3_weights_{role}") for role in ("G", "D")}


@pytest.fixture(scope="session")
def numbers() -> dict[str, Tensor]:
    """Inputs, outputs and gradient norms of the official networks."""
    return read("sg2_32_cond3")


@pytest.fixture(scope="session")
def parameter_names() -> dict[str, list[str]]:
    """The order of the gradient norms."""
    with np.load(DATA / "sg2_32_cond3.npz") as arrays:
        return {"G": arrays["G_ema_param_names"].tolist(), "D": arrays["R1_param_names"].tolist()}


@pytest.fixture
def official_g(weights) -> Generator:
    g = Generator(
        z_dim=64, c_dim=3, w_dim=64, img_resolution=32, img_channels=3, num_fp16_res=4, conv_clamp=256, **WIDTHS
    )
    g.load_state_dict(weights["G"])
    return g.eval()


@pytest.fixture
def official_d(weights) -> Discriminator:
    d = Discriminator(c_dim=3, img_resolution=32, img_channels=3, num_fp16_res=4, conv_clamp=256, **WIDTHS)
    d.load_state_dict(weights["D"])
    return d.eval()


@pytest.fixture
def small_g() -> Generator:
    torch.manual_seed(0)
    return Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_layers=2, channel_max=8)


@pytest.fixture
def small_d() -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_max=8)
