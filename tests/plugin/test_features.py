"""What a layer gives becomes [N, F], whatever its shape."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kd_plugin import LayerError
from kd_plugin.student.features import TappedLayer, pooled, split_key, student_width


class OfficialStyle(nn.Module):
    """A layer that keeps nothing but its weight."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))


@pytest.mark.parametrize(
    ("layer", "width"),
    [
        (nn.Linear(3, 7), 7),
        (nn.Conv2d(3, 8, 1), 8),
        (nn.ConvTranspose2d(3, 9, 1), 9),
        (nn.BatchNorm2d(5), 5),
        (nn.LayerNorm([4, 6]), 6),
        (OfficialStyle(11, 4), 11),
        (OfficialStyle(12, 4, 3, 3), 12),
        (OfficialStyle(12), None),
        (nn.Embedding(10, 4), None),
        (nn.ReLU(), None),
    ],
)
def test_width_read_from_the_layer(layer, width):
    assert student_width(layer) == width


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "layout", "width", "places"),
    [
        ((2, 3, 4, 5), "auto", None, (2, 3)),  # a map
        ((2, 3, 4, 5), "auto", 3, (2, 3)),
        ((2, 4, 5, 3), "auto", 3, (1, 2)),  # a map, channels last
        ((2, 3, 4, 3), "auto", 3, (2, 3)),
        ((2, 3, 4, 3), "channels_last", 3, (1, 2)),
        ((2, 7, 3), "auto", None, (1,)),  # tokens
        ((2, 7, 3), "auto", 3, (1,)),
        ((2, 3, 7), "auto", 3, (2,)),
        ((2, 3, 3), "auto", 3, (1,)),
        ((2, 3, 3), "channels_first", 3, (2,)),
    ],
)
def test_the_mean_over_the_places(shape, layout, width, places):
    features = numbers(*shape)
    expected = features
    for place in sorted(places, reverse=True):
        expected = expected.sum(place) / shape[place]
    torch.testing.assert_close(pooled(features, layout, width), expected)


def test_the_class_token():
    tokens = numbers(2, 7, 3)
    assert torch.equal(pooled(tokens, "class_token"), tokens[:, 0])
    flat = numbers(2, 3)
    assert torch.equal(pooled(flat, "class_token"), flat)


def test_vectors_stay_as_they_are():
    assert torch.equal(pooled(numbers(2, 3)), numbers(2, 3))


@pytest.mark.parametrize(
    ("shape", "width", "message"),
    [
        ((2,), None, "its output has the shape [2]; a student feature is [N, F], tokens [N, T, F] or a map"),
        ((2, 3, 1, 4, 4), None, "its output has the shape [2, 3, 1, 4, 4]; a student feature is"),
        ((2, 7, 3), 5, "the shape [2, 7, 3], and no axis holds 5 features; pass width=3 to attach()"),
        ((2, 3, 4, 4), 5, "the shape [2, 3, 4, 4], and no axis holds 5 features; pass width=3 to attach()"),
    ],
)
def test_no_feature(shape, width, message):
    with pytest.raises(LayerError, match=re.escape(message)):
        pooled(torch.zeros(shape), width=width)


@pytest.mark.parametrize(
    ("module", "shape", "places"),
    [
        (nn.Linear(4, 4), (2, 4, 4, 4), (1, 2)),
        (nn.LayerNorm(4), (2, 4, 4, 4), (1, 2)),
        (nn.Conv2d(4, 4, 1), (2, 4, 4, 4), (2, 3)),
        (nn.Conv1d(4, 4, 1), (2, 4, 4), (2,)),
        (nn.GroupNorm(2, 4), (2, 4, 4), (2,)),
    ],
)
def test_layers_that_tell_where_their_channels_are(module, shape, places):
    """All axes have the same size, so that the shape tells nothing."""
    layer = TappedLayer.of("layer", module, None, None, "auto")
    features = module(numbers(*shape))
    assert layer.width == 4
    torch.testing.assert_close(layer.pooled(layer.read(features)), features.mean(places))


class Named(NamedTuple):
    logits: Tensor
    features: Tensor


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("block[1]", (numbers(2, 1), numbers(2, 3))),
        ("block[1]", [numbers(2, 1), numbers(2, 3)]),
        ("block[1]", Named(numbers(2, 1), numbers(2, 3))),
        ("block[features]", {"logits": numbers(2, 1), "features": numbers(2, 3)}),
        ("block", numbers(2, 3)),
    ],
)
def test_one_of_several_outputs(name, output):
    base, key = split_key(name)
    assert base == "block"
    layer = TappedLayer.of(name, nn.Identity(), key, 3, "auto")
    assert torch.equal(layer.read(output), numbers(2, 3))
    replaced = layer.replace(output, torch.zeros(2, 3))
    assert type(replaced) is type(output)
    assert not layer.read(replaced).any()
    if key is not None:
        first = next(iter(output.values())) if isinstance(output, dict) else output[0]
        assert torch.equal(next(iter(replaced.values())) if isinstance(replaced, dict) else replaced[0], first)


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("b", (numbers(2, 1), 3.0), "layer='b' returns a tuple of 2; write layer='b[0]' ([2, 1])"),
        ("b", {"x": numbers(2, 1), "y": numbers(2, 5)}, "a dict of 2; write layer='b[x]' ([2, 1]) or 'b[y]' ([2, 5])"),
        ("b", None, "layer='b' returns a NoneType; expected a tensor"),
        ("b[2]", [numbers(2, 1)], "layer='b[2]': found no tensor under [2]; the layer returns a list of 1; write"),
        ("b[0]", numbers(2, 1), "layer='b[0]': found no tensor under [0]; the layer returns a Tensor"),
    ],
)
def test_errors_tell_what_to_write(name, output, message):
    layer = TappedLayer.of(name, nn.Identity(), split_key(name)[1], None, "auto")
    with pytest.raises(LayerError, match=re.escape(message)):
        layer.read(output)
