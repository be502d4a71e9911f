"""The registry finds, lists, and explains a miss."""

from __future__ import annotations

import pytest

from kd_plugin.errors import KDError
from kd_plugin.registry import Registry


@pytest.fixture
def shapes():
    registry = Registry("shape")
    registry.register("circle")(1)
    registry.register("square")(2)
    return registry


def test_finds_and_lists(shapes):
    assert shapes["circle"] == 1
    assert list(shapes) == ["circle", "square"]
    assert "square" in shapes
    assert "triangle" not in shapes


def test_register_decorates(shapes):
    @shapes.register("triangle")
    def triangle():
        return 3

    assert triangle() == 3
    assert shapes["triangle"] is triangle


def test_a_miss_names_the_nearest(shapes):
    with pytest.raises(KDError, match="unknown shape 'cirle'; nearest: 'circle'"):
        shapes["cirle"]


def test_a_name_is_taken_once(shapes):
    with pytest.raises(KDError, match="shape 'circle' is registered twice"):
        shapes.register("circle")(3)
