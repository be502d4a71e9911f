"""BigGAN for CIFAR against the authors' networks: names, sizes, outputs, gradients and buffers; and by definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from dnnlib.errors import UserError
from training.networks.biggan import Discriminator, Generator
from training.networks.biggan.layers import ClassBatchNorm, SpectralConv2d, SpectralEmbedding, SpectralLinear

GOLDEN = Path(__file__).parent.parent / "data" / "biggan_32_small.npz"  # made by the original networks


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def part(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


@pytest.fixture
def networks(golden: dict[str, Tensor]) -> tuple[Generator, Discriminator]:
    """With the original weights, in training mode."""
    G, D = Generator(6, 3, 32, 3, channels=8), Discriminator(3, 32, 3, channels=8)
    G.load_state_dict(part(golden, "before.G."))
    D.load_state_dict(part(golden, "before.D."))
    return G.train(), D.train()


def one_hot(y: Tensor, classes: int) -> Tensor:
    return F.one_hot(y, classes).float()


def test_names_and_their_order_are_the_original_ones(golden):
    for network, role in ((Generator(6, 3, 32, 3, 8), "G"), (Discriminator(3, 32, 3, 8), "D")):
        theirs = part(golden, f"before.{role}.")
        assert list(network.state_dict()) == list(theirs)
        assert {name: value.shape for name, value in network.state_dict().items()} == {
            name: value.shape for name, value in theirs.items()
        }


@pytest.mark.parametrize(("classes", "g", "d"), [(10, 4_304_387, 4_207_361), (100, 4_580_867, 4_230_401)])
def test_parameter_counts_are_the_published_networks(classes, g, d):
    """Counted in the original networks with the widths of the CIFAR scripts (G_ch = D_ch = 64)."""
    for network, count in ((Generator(128, classes, 32, 3), g), (Discriminator(classes, 32, 3), d)):
        assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_outputs_gradients_and_buffers_are_the_original_ones(networks, golden):
    G, D = networks
    c = one_hot(golden["y"], 3)
    images = G(golden["z"], c)
    assert_close(images, golden["images"], rtol=0, atol=2e-6)
    logits = D(images, c)
    assert_close(logits, golden["logits"], rtol=1e-5, atol=1e-5 * float(golden["logits"].abs().max()))
    (logits * golden["w"]).sum().backward()
    for role, network in (("G", G), ("D", D)):
        expected = part(golden, f"grad.{role}.")
        assert expected.keys() == {name for name, _ in network.named_parameters()}
        largest = max(float(value.abs().max()) for value in expected.values())
        for name, parameter in network.named_parameters():
            assert_close(
                parameter.grad, expected[name], rtol=1e-3, atol=2e-6 * largest, msg=lambda m, n=name: f"{n}: {m}"
            )
        for name, buffer in network.named_buffers():
            assert_close(buffer, golden[f"after.{role}.{name}"], rtol=1e-5, atol=1e-6)
    G.eval(), D.eval()
    with torch.no_grad():
        images = G(golden["z"], c)
        assert_close(images, golden["eval_images"], rtol=0, atol=2e-6)
        assert_close(D(images, c), golden["eval_logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: SpectralLinear(7, 5), (2, 7)),
        (lambda: SpectralConv2d(3, 4), (2, 3, 5, 5)),
        (lambda: SpectralEmbedding(6, 4), (2, 6)),
    ],
    ids=["linear", "conv", "embedding"],
)
def test_spectral_norm_by_definition(make, shape):
    """After enough calls the used weight's largest singular value is 1, whatever the stored weight's is."""
    torch.manual_seed(0)  # how many calls are enough depends on how close the two largest singular values are
    layer, x = make(), torch.randn(shape)
    with torch.no_grad():
        layer.weight.mul_(37)
        for _ in range(200):
            layer(x)
        assert torch.linalg.matrix_norm(layer.normalized_weight().flatten(1), ord=2) == pytest.approx(1, abs=1e-5)
        stored = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert float(layer.sv0) == pytest.approx(float(stored), rel=1e-5)
    layer.eval()
    before = layer.u0.clone()
    layer(x)
    assert torch.equal(layer.u0, before)  # it moves in training mode only


def test_gradients_by_finite_differences():
    """Every entry of the weight in turn, by a double loop over outputs and entries, in float64."""
    torch.manual_seed(0)
    layer = SpectralLinear(3, 4).double().eval()
    x, eps = torch.randn(2, 3, dtype=torch.float64), 1e-6
    u = F.normalize(F.normalize(layer.u0 @ layer.weight) @ layer.weight.T)  # held fixed: it carries no gradient
    v = F.normalize(layer.u0 @ layer.weight)

    def output(weight: Tensor) -> Tensor:
        return x @ (weight / (v.detach() @ weight.T @ u.detach().T)).T + layer.bias

    with torch.no_grad():
        assert_close(layer(x), output(layer.weight))
    for n in range(2):
        for o in range(4):
            layer.weight.grad = None
            layer(x)[n, o].backward()
            for i in range(4):
                for j in range(3):
                    with torch.no_grad():
                        step = torch.zeros_like(layer.weight)
                        step[i, j] = eps
                        slope = (output(layer.weight + step) - output(layer.weight - step))[n, o] / (2 * eps)
                    assert float(layer.weight.grad[i, j]) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


def test_batch_norm_by_definition():
    torch.manual_seed(0)
    norm = ClassBatchNorm(3, 2)
    x, c = torch.randn(4, 3, 2, 2) * 3 + 1, one_hot(torch.tensor([0, 1, 1, 0]), 2)
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), correction=0, keepdim=True)
    rows = c.argmax(1)
    gain, bias = 1 + norm.gain.weight[rows], norm.bias.weight[rows]
    expected = (x - mean) / (var + 1e-5).sqrt() * gain[:, :, None, None] + bias[:, :, None, None]
    assert_close(norm(x, c), expected)
    assert_close(norm.stored_mean, 0.1 * mean.flatten())
    norm.eval()
    assert_close(norm(x[:1], c[:1]), norm(x, c)[:1])  # an image does not depend on its batch


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_other_sizes_and_no_classes(side, c_dim):
    G, D = Generator(5, c_dim, side, 1, 8), Discriminator(c_dim, side, 1, 8)
    c = torch.eye(3) if c_dim else None
    images = G(torch.randn(3, 5), c)
    assert images.shape == (3, 1, side, side)
    assert D(images, c).shape == (3, 1)
    features: list[Tensor] = []
    D.pool.register_forward_hook(lambda module, given, x: features.append(x))
    D(images, c)
    assert features[0].shape == (3, 8)


def test_labels_matter():
    G, D = Generator(5, 3, 16, 3, 8).eval(), Discriminator(3, 16, 3, 8).eval()
    z = torch.randn(1, 5).expand(3, -1)
    images = G(z, torch.eye(3))
    assert not torch.equal(images[0], images[1])
    logits = D(images[:1].expand(3, -1, -1, -1), torch.eye(3))
    assert logits.unique().numel() == 3


def test_init_kwargs_build_the_same_network():
    for network in (Generator(5, 3, 16, 3, 8), Discriminator(3, 16, 3, 8)):
        again: nn.Module = type(network)(**network.init_kwargs)
        again.load_state_dict(network.state_dict())


@pytest.mark.parametrize("side", [4, 24, 33])
def test_a_size_that_does_not_double(side):
    for build in (lambda: Generator(5, 0, side, 3), lambda: Discriminator(0, side, 3)):
        with pytest.raises(UserError, match=f"^--resolution: {side} is not a power of two of at least 8; give 32"):
            build()


def test_truncation_scales_the_latent():
    G = Generator(5, 0, 16, 3, 8).eval()
    z = torch.randn(2, 5)
    assert_close(G(z, truncation_psi=0.5), G(z / 2))
    with pytest.raises(UserError, match=r"^--trunc-cutoff: this network"):
        G(z, truncation_cutoff=2)
