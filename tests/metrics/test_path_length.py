"""Path lengths: a generator whose paths are known, the dropped ends, and noise that both ends share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.metrics.path_length import path_jobs, path_length
from training.networks.stylegan2 import Generator


class Straight(nn.Module):
    """Every pixel is 3 w0 + noise, w = z: an image moves 3 |dw0| a pixel."""

    z_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Module()
        self.layer.register_buffer("noise_const", torch.zeros(1))

    def mapping(self, z: Tensor, c: Tensor) -> Tensor:
        assert len(c) == len(z)
        return z[:, None, :]

    def synthesis(self, ws: Tensor, noise_mode: str, force_fp32: bool) -> Tensor:
        assert (noise_mode, force_fp32) == ("const", True)
        images = (3 * ws[:, 0, :1, None, None] + self.layer.noise_const).expand(-1, 3, 8, 8)
        return images


def steps_of(G: nn.Module, count: int = 40, batch: int = 7, seed: int = 0) -> Tensor:
    def first_pixel(images: Tensor) -> Tensor:
        return images[:, :1, 0, 0].double()

    cpu = torch.device("cpu")
    jobs = path_jobs(
        G,
        first_pixel,
        lambda n, draws: torch.zeros(5, 0)[torch.randint(5, [n], generator=draws)],
        count,
        batch=batch,
        seed=seed,
        device=cpu,
    )
    return torch.cat([job.make() for job in jobs])


def test_a_generator_whose_paths_are_known() -> None:
    G = Straight().double()
    draws = torch.Generator().manual_seed(0)
    expected = []
    for size in (7, 7, 7, 7, 7, 5):
        z = torch.randn([2 * size, 2], generator=draws)
        torch.randint(5, [size], generator=draws)
        expected += [(127.5 * 3 * float(end - start)) ** 2 for start, end in zip(*z[:, 0].chunk(2), strict=True)]
    # float32 images: eps² is 1e-8 and the rounding of a pixel of 127 is 1e-5
    assert steps_of(G).tolist() == pytest.approx(expected, rel=0.05, abs=100)


def test_the_ends_are_dropped() -> None:
    values = torch.arange(1000.0)
    values[-3:] = math.inf
    assert path_length(values) == pytest.approx(sum(range(9, 991)) / 982)
    assert path_length(torch.tensor([3.0, 5.0])) == 4


def test_repeatable_and_without_a_trace() -> None:
    torch.manual_seed(0)
    G = Generator(
        z_dim=8, c_dim=0, w_dim=8, img_resolution=8, img_channels=3, mapping_layers=1, channel_base=64, channel_max=8
    )
    before, kept = torch.get_rng_state(), {name: value.clone() for name, value in G.state_dict().items()}
    first = steps_of(G)
    assert torch.equal(steps_of(G), first)
    assert not torch.equal(steps_of(G, seed=1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, kept[name]) for name, value in G.state_dict().items())
    assert (first > 0).all()
