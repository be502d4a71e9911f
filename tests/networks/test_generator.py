"""The generator beyond the official numbers: options, randomness, running mean, copies and messages."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

import training.networks.stylegan2.synthesis
from training.networks.stylegan2 import Generator, MappingNetwork

SIZES = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3, "channel_max": 8}


@pytest.fixture
def z():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(2))


def noisy(g: Generator) -> Generator:
    """Turn the noise inputs on, which start at strength 0."""
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return g


@pytest.mark.parametrize(("resolution", "num_ws"), [(4, 2), (8, 4), (64, 10)])
def test_resolutions(resolution, num_ws):
    g = Generator(**{**SIZES, "img_resolution": resolution, "img_channels": 1})
    assert g.num_ws == num_ws
    assert g(torch.randn(2, 8)).shape == (2, 1, resolution, resolution)


def test_published_sizes():
    g = Generator(z_dim=512, c_dim=0, w_dim=512, img_resolution=256, img_channels=3)
    assert sum(parameter.numel() for parameter in g.parameters()) == 30_034_338
    assert g.synthesis.b256.conv1.weight.shape == (128, 128, 3, 3)
    assert g.num_ws == 14


@torch.no_grad()
def test_initialisation():
    torch.manual_seed(0)
    g = Generator(z_dim=256, c_dim=4, w_dim=256, img_resolution=8, img_channels=3, channel_max=64)
    assert g.mapping.fc3.weight.std() == pytest.approx(100, rel=0.02)  # N(0,1) over the learning rate multiplier .01
    assert g.mapping.embed.weight.std() == pytest.approx(1, rel=0.1)
    for layer in (g.synthesis.b4.conv1, g.synthesis.b8.conv0, g.synthesis.b8.conv1):
        assert layer.weight.std() == pytest.approx(1, rel=0.05)
        assert layer.noise_const.std() == pytest.approx(1, rel=0.4)
        assert layer.affine.bias.tolist() == [1.0] * 64
        assert layer.bias.abs().max() == 0
        assert layer.noise_strength == 0
    ws = g.mapping(torch.randn(500, 256), torch.eye(4)[torch.arange(500) % 4])
    # Equalised: a layer keeps the mean square but for 1 + .2², as the gain √2 is that of a slope of 0 below zero.
    assert ws.square().mean() == pytest.approx(1.04**8, rel=0.3)


def test_mapping_layers():
    g = Generator(**SIZES, mapping_layers=3)
    assert [name for name, _ in g.mapping.named_children()] == ["fc0", "fc1", "fc2"]


def test_noise_modes(small_g, z):
    g = noisy(small_g)
    assert not torch.equal(g(z), g(z))
    assert torch.equal(g(z, noise_mode="const"), g(z, noise_mode="const"))
    assert not torch.equal(g(z, noise_mode="const"), g(z, noise_mode="none"))
    torch.manual_seed(7)
    first = g(z)
    torch.manual_seed(7)
    assert torch.equal(g(z), first)


def test_without_noise_inputs(small_g, z):
    g = Generator(**{**small_g.init_kwargs, "use_noise": False}).eval()
    names = {name for name in small_g.state_dict() if "noise" in name}
    assert g.state_dict().keys() == small_g.state_dict().keys() - names
    assert len(names) == 2 * 5
    assert torch.equal(g(z), g(z))
    assert torch.equal(g(z), g(z, noise_mode="none"))
    g.load_state_dict({name: value for name, value in small_g.state_dict().items() if name not in names})
    assert torch.equal(g(z), small_g.eval()(z, noise_mode="none"))


def test_noise_is_drawn_for_every_image(small_g, z):
    same = z[:1].expand(4, -1)
    images = noisy(small_g).eval()(same)
    assert not torch.equal(images[0], images[1])


def test_fused_and_unfused_agree(small_g, z):
    ws = small_g.mapping(z)
    fused, unfused = (small_g.synthesis(ws, noise_mode="const", fused_modconv=fused) for fused in (True, False))
    assert_close(fused, unfused, rtol=1e-4, atol=1e-4)


def test_running_mean_of_w(small_g, z):
    mapping = small_g.mapping
    assert mapping.w_avg.abs().max() == 0
    mapping(z, skip_w_avg_update=True)
    mapping.eval()(z)
    small_g.train()(z)
    assert mapping.w_avg.abs().max() == 0
    w = mapping.train()(z)[:, 0]
    assert_close(mapping.w_avg, 0.005 * w.mean(dim=0))
    assert not mapping.w_avg.requires_grad
    mapping(z)
    assert_close(mapping.w_avg, (0.005 + 0.995 * 0.005) * w.mean(dim=0))


def test_truncation(small_g, z):
    small_g.eval().mapping.w_avg.normal_()
    ws = small_g.mapping(z)
    mean = small_g.mapping.w_avg
    assert_close(small_g.mapping(z, truncation_psi=0), mean.expand_as(ws))
    assert_close(small_g.mapping(z, truncation_psi=0.3), mean + 0.3 * (ws - mean))
    cut = small_g.mapping(z, truncation_psi=0, truncation_cutoff=2)
    assert_close(cut[:, :2], mean.expand(4, 2, 8))
    assert torch.equal(cut[:, 2:], ws[:, 2:])


def test_scale_of_z_does_not_matter(small_g, z):
    assert_close(small_g.mapping(z), small_g.mapping(3 * z))


def test_labels_matter(z):
    g = Generator(**{**SIZES, "c_dim": 2})
    one, two = torch.eye(2)[[0, 0, 0, 0]], torch.eye(2)[[1, 1, 1, 1]]
    assert not torch.allclose(g(z, one, noise_mode="none"), g(z, two, noise_mode="none"))


def test_copies(small_g, z):
    small_g.eval()
    images = small_g(z, noise_mode="const")
    rebuilt = Generator(**small_g.init_kwargs).eval()
    rebuilt.load_state_dict(small_g.state_dict())
    for other in (copy.deepcopy(small_g), pickle.loads(pickle.dumps(small_g)), rebuilt):
        assert torch.equal(other(z, noise_mode="const"), images)
        assert other.init_kwargs == small_g.init_kwargs
    assert small_g.init_kwargs["mapping_layers"] == 2
    further = {"mapping_layers", "channel_base", "num_fp16_res", "conv_clamp", "use_noise"}
    assert set(small_g.init_kwargs) == set(SIZES) | further


def test_every_parameter_learns(small_g, z):
    noisy(small_g)(z).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in small_g.parameters())


def test_float16_blocks(monkeypatch, z):
    """On a CPU only by force: the images must stay near those of float32, and be float32 themselves."""
    torch.manual_seed(0)
    g = Generator(**SIZES, num_fp16_res=1, conv_clamp=256).eval()
    assert [g.synthesis.b4.dtype, g.synthesis.b8.dtype, g.synthesis.b16.dtype] == [torch.float32] * 2 + [torch.float16]
    exact = g(z, noise_mode="const")
    assert torch.equal(g(z, noise_mode="const", force_fp32=True), exact)  # no float16 on a CPU
    monkeypatch.setattr(training.networks.stylegan2.synthesis, "compute_dtype", lambda wanted, device, force: wanted)
    half = g(z, noise_mode="const")
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert_close(half, exact, rtol=2e-2, atol=2e-2)


def test_clamp_bounds_the_features():
    g = Generator(**SIZES, conv_clamp=0.01)
    largest = []
    g.synthesis.b16.conv1.register_forward_hook(lambda module, args, out: largest.append(out.abs().max().item()))
    g(torch.randn(2, 8))
    assert largest[0] == pytest.approx(0.01)


@pytest.mark.parametrize("resolution", [0, 2, 48, 100])
def test_resolution_message(resolution):
    with pytest.raises(
        ValueError, match=f"--resolution: {resolution} is not a power of two of at least 4; give 4, 8, 16"
    ):
        Generator(**{**SIZES, "img_resolution": resolution})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g, z: g(z, noise_mode="konst"),
            "--noise-mode: 'konst' is unknown; expected one of random, const, none",
        ),
        (lambda g, z: g(z[:, :5]), r"the latent z has shape \[4, 5\]; expected \[N, 8\]"),
        (lambda g, z: g(None), r"no latents were given; expected \[N, 8\]"),
        (lambda g, z: g(z, torch.zeros(4, 3)), r"labels of shape \[4, 3\] were given to a network without labels"),
        (lambda g, z: g.synthesis(torch.zeros(4, 3, 8)), r"ws has shape \[4, 3, 8\]; expected \[N, 6, 8\]"),
        (lambda g, z: Generator(**SIZES, mapping_layers=0), "mapping_layers=0; expected at least 1"),
        (
            lambda g, z: Generator(**SIZES, channel_base=8),
            "--cbase=8 and --cmax=8 leave no channels at 16 pixels; expected at least --cbase=16 and --cmax=1",
        ),
        (lambda g, z: MappingNetwork(0, 0, 8, None), "no input: z_dim and c_dim are both 0"),
        (
            lambda g, z: MappingNetwork(8, 0, 8, 2, w_avg_beta=None)(z, truncation_psi=0.5),
            "truncation_psi=0.5, but this network keeps no running mean",
        ),
    ],
)
def test_errors(small_g, z, call, message):
    with pytest.raises(ValueError, match=message):
        call(small_g, z)


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (None, r"no labels were given to a conditional network; expected \[N, 2\], one-hot"),
        (torch.zeros(4, 3), r"the label c has shape \[4, 3\]; expected \[N, 2\]"),
        (torch.zeros(3, 2), "3 labels for 4 samples"),
    ],
)
def test_label_errors(z, c, message):
    with pytest.raises(ValueError, match=message):
        Generator(**{**SIZES, "c_dim": 2})(z, c)
