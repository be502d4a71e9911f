"""The discriminator beyond the official numbers: minibatch statistics, architectures, labels, copies and messages."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

import training.networks.stylegan2.discriminator
from training.networks.stylegan2 import Discriminator
from training.networks.stylegan2.discriminator import ARCHITECTURES, group_size_of, minibatch_std

SIZES = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_max": 8}


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("batch", "group_size"), [(8, 4), (6, 3), (4, 4), (3, 4), (1, 4), (4, 1)])
def test_minibatch_std(batch, group_size):
    x = torch.randn(batch, 5, 2, 3, dtype=torch.float64)
    y = minibatch_std(x, group_size)
    assert y.shape == (batch, 6, 2, 3)
    assert torch.equal(y[:, :5], x)
    members = min(group_size, batch)
    groups = batch // members
    for n in range(batch):
        group = [x[m] for m in range(batch) if m % groups == n % groups]
        assert len(group) == members
        total = 0.0
        for c in range(5):
            for i in range(2):
                for j in range(3):
                    values = [float(member[c, i, j]) for member in group]
                    mean = sum(values) / members
                    total += (sum((value - mean) ** 2 for value in values) / members + 1e-8) ** 0.5
        assert_close(y[n, 5], torch.full((2, 3), total / 30, dtype=torch.float64))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_architectures(architecture, c_dim, images):
    torch.manual_seed(0)
    d = Discriminator(**{**SIZES, "c_dim": c_dim}, architecture=architecture)
    c = torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    images.requires_grad_()
    logits = d(images, c)
    assert logits.shape == (4, 1)
    logits.sum().backward()
    assert images.grad.abs().amax(dim=[1, 2, 3]).min() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in d.parameters())
    names = {
        name.removesuffix(".weight") for name in d.state_dict() if name.endswith((".fromrgb.weight", ".skip.weight"))
    }
    assert (
        names
        == {
            "resnet": {"b16.fromrgb", "b16.skip", "b8.skip"},
            "skip": {"b16.fromrgb", "b8.fromrgb", "b4.fromrgb"},
            "orig": {"b16.fromrgb"},
        }[architecture]
    )


def test_skip_reads_the_image_at_every_resolution(images):
    """With its convolutions silenced above 4 pixels, "skip" still sees the image; "orig" does not."""
    for architecture, sees in (("skip", True), ("orig", False)):
        d = Discriminator(**SIZES, architecture=architecture)
        with torch.no_grad():
            d.b8.conv1.weight.zero_()
        logits = d(images)
        assert (logits.std() > 0) == sees


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_four_pixels(architecture):
    d = Discriminator(**{**SIZES, "img_resolution": 4}, architecture=architecture)
    assert d(torch.randn(2, 3, 4, 4)).shape == (2, 1)


def test_published_sizes():
    d = Discriminator(c_dim=0, img_resolution=256, img_channels=3)
    assert d.b4.fc.weight.shape == (512, 8192)
    assert d.b4.out.weight.shape == (1, 512)
    assert d.b256.conv1.weight.shape == (256, 128, 3, 3)


def test_the_layer_a_plug_in_taps(small_d, images):
    features = []
    small_d.b4.fc.register_forward_hook(lambda module, args, out: features.append(out))
    logits = small_d(images)
    assert features[0].shape == (4, 8)
    assert_close(small_d.b4.out(features[0]), logits)


@torch.no_grad()
def test_residual_branches_keep_the_mean_square():
    torch.manual_seed(0)
    d = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_max=64)
    flat = torch.randn(16, 64, 1, 1).expand(-1, -1, 16, 16)  # a low-pass takes nothing from it
    x, _ = d.b8(flat, torch.zeros(16, 3, 16, 16), force_fp32=False)
    assert x[:, :, 2:6, 2:6].square().mean() == pytest.approx(1, rel=0.2)


def test_labels_matter(images):
    d = Discriminator(**{**SIZES, "c_dim": 2})
    assert not torch.allclose(d(images, torch.eye(2)[[0] * 4]), d(images, torch.eye(2)[[1] * 4]))


def test_copies(small_d, images):
    logits = small_d(images)
    assert torch.equal(small_d(images), logits)
    rebuilt = Discriminator(**small_d.init_kwargs)
    rebuilt.load_state_dict(small_d.state_dict())
    for other in (copy.deepcopy(small_d), pickle.loads(pickle.dumps(small_d)), rebuilt):
        assert torch.equal(other(images), logits)
        assert other.init_kwargs == small_d.init_kwargs
    optional = {"architecture", "channel_base", "num_fp16_res", "conv_clamp", "mbstd_group_size", "mapping_layers"}
    assert set(small_d.init_kwargs) == set(SIZES) | optional


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float16_blocks(monkeypatch, images, architecture):
    torch.manual_seed(0)
    d = Discriminator(**SIZES, architecture=architecture, num_fp16_res=4, conv_clamp=256)
    assert d.b8.dtype == torch.float16
    exact = d(images)
    assert torch.equal(d(images, force_fp32=True), exact)  # no float16 on a CPU
    monkeypatch.setattr(
        training.networks.stylegan2.discriminator, "compute_dtype", lambda wanted, device, force: wanted
    )
    half = d(images)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert_close(half, exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: d(x[:, :1]), r"the image batch has shape \[4, 1, 16, 16\]; expected \[N, 3, 16, 16\]"),
        (lambda d, x: d(x[:, :, :8, :8]), r"expected \[N, 3, 16, 16\]"),
        (lambda d, x: d(x, torch.zeros(4, 2)), "were given to a network without labels"),
        (
            lambda d, x: Discriminator(**SIZES, architecture="res"),
            "architecture 'res'; expected one of resnet, skip, orig",
        ),
        (lambda d, x: Discriminator(**SIZES, mbstd_group_size=0), "--mbstd-group: 0; expected at least 1"),
        (lambda d, x: Discriminator(**{**SIZES, "img_resolution": 24}), "--resolution: 24 is not a power of two"),
        (lambda d, x: Discriminator(**{**SIZES, "c_dim": 2})(x), r"no labels were given .* expected \[N, 2\]"),
        (lambda d, x: Discriminator(**{**SIZES, "c_dim": 2})(x, torch.zeros(3, 2)), "3 labels for 4 samples"),
    ],
)
def test_errors(small_d, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(small_d, images)


@pytest.mark.parametrize(
    ("batch", "most", "size"), [(8, 4, 4), (6, 4, 3), (7, 4, 1), (3, 4, 3), (1, 4, 1), (64, 32, 32), (10, 4, 2)]
)
def test_the_group_falls_to_a_divisor_of_the_batch(batch, most, size):
    assert group_size_of(batch, most) == size
    x = torch.randn(batch, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(minibatch_std(x, most), minibatch_std(x, size))
