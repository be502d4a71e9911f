"""Heads bring the student feature to the teacher's width without touching the global random state."""

from __future__ import annotations

import re

import pytest
import torch

from kd_plugin.errors import KDError, LayerError
from kd_plugin.student.features import pooled
from kd_plugin.student.heads import IdentityHead, LinearHead, make_head


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_any_float_type_is_taken(given, computed):
    assert pooled(torch.ones(2, 3, dtype=given)).dtype == computed
    assert pooled(torch.full((1, 1, 64, 64), 60000.0).to(given)).isfinite().all()  # a sum in float16 would overflow
    assert make_head("linear", 3, 4, seed=0)(torch.ones(2, 3, dtype=given)).dtype == torch.float32


def test_auto_takes_identity_where_widths_agree():
    head = make_head("auto", 6, 6, seed=0)
    features = torch.randn(2, 6)
    assert isinstance(head, IdentityHead)
    assert torch.equal(head(features), features)
    assert not list(head.parameters())


def test_auto_and_linear_are_an_affine_map():
    for kind in ("auto", "linear"):
        head = make_head(kind, 5, 6, seed=0)
        assert isinstance(head, LinearHead)
        features = torch.randn(2, 5)
        torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)
    assert isinstance(make_head("linear", 6, 6, seed=0), LinearHead)


def test_linear_start_depends_on_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make_head("linear", 64, 32, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(make_head("linear", 64, 32, seed=3).weight, first.weight)
    assert not torch.equal(make_head("linear", 64, 32, seed=4).weight, first.weight)
    assert 0.9 < first.weight.norm(dim=1).mean() < 1.1  # rows of about unit length


def test_identity_for_two_widths_names_the_flag():
    message = "head='identity' needs equal widths, but the layer gives 5 features and the teacher 6"
    with pytest.raises(KDError, match=message):
        make_head("identity", 5, 6, seed=0)


def test_unknown_kind():
    with pytest.raises(KDError, match="head='conv' is unknown"):
        make_head("conv", 5, 6, seed=0)


@pytest.mark.parametrize(("student", "teacher"), [(6, 6), (9, 5), (5, 9)])
def test_an_orthogonal_head_stays_orthogonal_while_it_learns(student, teacher):
    head = make_head("orthogonal", student, teacher, seed=0)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    before = head.map.weight.detach().clone()
    features, target = torch.randn(8, student), torch.randn(8, teacher)
    for _ in range(5):
        optimizer.zero_grad()
        (head(features) - target).square().mean().backward()
        optimizer.step()
    weight = head.map.weight.detach()
    assert not torch.allclose(weight, before, atol=1e-2)
    small = weight @ weight.T if teacher <= student else weight.T @ weight
    torch.testing.assert_close(small, torch.eye(min(student, teacher)), atol=1e-5, rtol=0)


def test_the_mlp_head_is_two_linear_maps_of_spectral_norm_one():
    head = make_head("mlp", 7, 5, seed=0)
    for _ in range(200):
        head(torch.randn(4, 7))  # a power iteration each
    first, second = (layer.weight.detach() for layer in head.layers)
    assert (first.shape, second.shape) == ((1024, 7), (5, 1024))
    for weight in (first, second):
        assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=1e-3)
    a, b = torch.randn(2, 3, 7)
    middle = head.eval()((a + b) / 2)
    torch.testing.assert_close(middle, (head(a) + head(b)) / 2, atol=1e-6, rtol=1e-4)  # nothing bends


@pytest.mark.parametrize("kind", ["mlp", "orthogonal"])
def test_other_heads_start_by_the_seed_alone(kind):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, features = (
        make_head(kind, 7, 5, seed=3).eval(),
        torch.randn(2, 7, generator=torch.Generator().manual_seed(1)),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(make_head(kind, 7, 5, seed=3).eval()(features), first(features))
    assert not torch.equal(make_head(kind, 7, 5, seed=4).eval()(features), first(features))
    restored = make_head(kind, 7, 5, seed=9).eval()
    restored.load_state_dict(first.state_dict())
    torch.testing.assert_close(restored(features), first(features))


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp", "orthogonal"])
def test_another_width_than_promised(kind):
    with pytest.raises(
        LayerError, match=re.escape("gives 4 features, but the head expects 6; pass width=4 to attach()")
    ):
        make_head(kind, 6, 6, seed=0)(torch.zeros(2, 4))
