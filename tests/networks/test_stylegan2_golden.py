"""Both networks against the official ones: outputs, first and second derivatives, names of the weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.official.stand_in import official_pickle
from training.networks.stylegan2 import Discriminator, Generator
from training.official.read import read_official

WIDTHS = {"channel_base": 1024, "channel_max": 64}


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 5e-5) -> None:
    """Within `tolerance` of the expected array's standard deviation."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.std()


def assert_gradient_norms(network: nn.Module, loss: Tensor, names: list[str], expected: Tensor) -> None:
    parameters = dict(network.named_parameters())
    assert list(parameters) == names
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    norms = torch.stack([grad.double().norm() for grad in grads])
    assert_close(norms, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_names_and_shapes_are_the_official_ones(official_g, official_d, weights):
    for network, state in ((official_g, weights["G"]), (official_d, weights["D"])):
        ours = {name: value.shape for name, value in network.state_dict().items()}
        assert ours == {name: value.shape for name, value in state.items()}
        assert list(ours) == list(state)  # the order too: an optimiser numbers its state by it


def test_mapping_and_truncation(official_g, numbers):
    z, c = numbers["z"], numbers["c"]
    assert_near(official_g.mapping(z, c), numbers["G_ema_w"])
    assert_near(official_g.mapping(z, c, truncation_psi=0.7), numbers["G_ema_w_psi07"])
    assert_near(official_g.mapping(z, c, truncation_psi=0.5, truncation_cutoff=3), numbers["G_ema_w_psi05_cut3"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("psi1", {"noise_mode": "const"}),
        ("psi1", {"noise_mode": "const", "force_fp32": True}),
        ("psi07", {"noise_mode": "const", "truncation_psi": 0.7}),
        ("psi1_nonoise", {"noise_mode": "none"}),
    ],
)
def test_images(official_g, numbers, name, options):
    assert_near(official_g(numbers["z"], numbers["c"], **options), numbers[f"G_ema_img_{name}"])


def test_images_of_a_network_in_an_official_file(official_g, numbers, tmp_path):
    (tmp_path / "g.pkl").write_bytes(official_pickle({"G_ema": official_g}))
    networks, _ = read_official(tmp_path / "g.pkl", ["G_ema"])
    images = networks["G_ema"](numbers["z"], numbers["c"], noise_mode="const", truncation_psi=0.7)
    assert_near(images, numbers["G_ema_img_psi07"])


@pytest.mark.parametrize(("name", "fused"), [("", True), ("_nofuse", False)])
def test_images_from_a_w_of_its_own_for_every_layer(official_g, numbers, name, fused):
    images = official_g.synthesis(numbers["ws_rand"], noise_mode="const", fused_modconv=fused)
    assert_near(images, numbers[f"G_ema_img_from_ws_rand{name}"])


@pytest.mark.parametrize("batch", [8, 4, 1])
def test_logits(official_d, numbers, batch):
    logits = official_d(numbers["D_in"][:batch], numbers["D_in_c"][:batch])
    assert_close(logits, numbers[f"D_logits_b{batch}"], rtol=1e-4, atol=1e-5)


def test_logits_of_generated_images(official_d, numbers):
    logits = official_d(numbers["G_ema_img_psi1"], numbers["c"])
    assert_close(logits, numbers["D_logits_on_G_ema"], rtol=1e-4, atol=1e-5)


def test_r1_and_its_gradient(official_d, numbers, parameter_names):
    real = numbers["D_in"][:4].clone().requires_grad_()
    (grad,) = torch.autograd.grad(official_d(real, numbers["D_in_c"][:4]).sum(), real, create_graph=True)
    assert_near(grad, numbers["R1_grad_b4"])
    penalty = grad.square().sum([1, 2, 3])
    assert_close(penalty, numbers["R1_penalty_b4"], rtol=1e-4, atol=0)
    assert_gradient_norms(official_d, penalty.mean(), parameter_names["D"], numbers["R1_param_grad_norm"])


def test_discriminator_loss_gradient(official_d, numbers, parameter_names):
    loss = F.softplus(-official_d(numbers["D_in"][:4], numbers["D_in_c"][:4])).mean()
    assert_gradient_norms(official_d, loss, parameter_names["D"], numbers["Dreal_param_grad_norm"])


def test_generator_loss_and_its_gradient(official_g, official_d, numbers, parameter_names):
    images = official_g(numbers["z"], numbers["c"], noise_mode="const")
    loss = F.softplus(-official_d(images, numbers["c"])).mean()
    assert_close(loss, numbers["G_ema_Gmain_loss"], rtol=1e-4, atol=0)
    assert_gradient_norms(official_g, loss, parameter_names["G"], numbers["G_ema_Gmain_param_grad_norm"])


def test_path_length_and_its_gradient(official_g, numbers, parameter_names):
    ws = official_g.mapping(numbers["z"], numbers["c"])
    images = official_g.synthesis(ws, noise_mode="const")
    (grad,) = torch.autograd.grad((images * numbers["PL_noise"]).sum(), ws, create_graph=True)
    assert_near(grad, numbers["PL_grads"])
    lengths = grad.square().sum(dim=2).mean(dim=1).sqrt()
    assert_close(lengths, numbers["PL_lengths"], rtol=1e-4, atol=0)
    loss = (lengths - 0.5).square().mean()
    assert_gradient_norms(official_g, loss, parameter_names["G"], numbers["PL_param_grad_norm"])


def test_unconditional_discriminator_with_a_label_folded_in(official_d, weights, numbers):
    """For a fixed label the projection is a linear layer: an unconditional network can hold it, and must agree."""
    for index in numbers["D_in_c"].argmax(dim=1).unique():
        label = F.one_hot(index, 3).float()[None]
        cmap = official_d.mapping(None, label)
        state = {name: value for name, value in weights["D"].items() if not name.startswith("mapping.")}
        state["b4.out.weight"] = cmap @ weights["D"]["b4.out.weight"] / math.sqrt(64)
        state["b4.out.bias"] = cmap @ weights["D"]["b4.out.bias"] / math.sqrt(64)
        plain = Discriminator(c_dim=0, img_resolution=32, img_channels=3, **WIDTHS)
        plain.load_state_dict(state)
        chosen = numbers["D_in_c"].argmax(dim=1) == index
        logits = plain(numbers["D_in"])
        assert_close(logits[chosen], numbers["D_logits_b8"][chosen], rtol=1e-4, atol=1e-5)


def test_unconditional_generator_with_a_label_folded_in(official_g, weights, numbers):
    """For a fixed label the embedding is a bias of the first layer."""
    for z, c, image in zip(numbers["z"], numbers["c"], numbers["G_ema_img_psi1"], strict=True):
        state = {name: value for name, value in weights["G"].items() if "embed" not in name}
        embedded = official_g.mapping.embed(c[None])[0]
        embedded = embedded * (embedded.square().mean() + 1e-8).rsqrt()
        first = weights["G"]["mapping.fc0.weight"] / math.sqrt(128)  # one over the root of its fan-in, now 64
        state["mapping.fc0.weight"] = first[:, :64] * math.sqrt(64)
        state["mapping.fc0.bias"] = weights["G"]["mapping.fc0.bias"] + first[:, 64:] @ embedded
        plain = Generator(z_dim=64, c_dim=0, w_dim=64, img_resolution=32, img_channels=3, **WIDTHS).eval()
        plain.load_state_dict(state)
        assert_near(plain(z[None], noise_mode="const")[0], image)
