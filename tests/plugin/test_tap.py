"""The tap reads what D computed, and leaves no trace on D."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kd_plugin.errors import CaptureError, LayerError
from kd_plugin.student.rows import Rows
from kd_plugin.student.tap import FeatureTap


def traces_on(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in module.modules())


def capture_both(tap, discriminator, real, fake):
    with tap.capture(Rows.of("real")):
        discriminator(real)
    with tap.capture(Rows.of("fake")):
        discriminator(fake)
    return tap.drain()


def test_reads_the_layer_and_the_input_before_an_inplace_activation(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    captured = capture_both(tap, discriminator, images(1), images(2))
    for role, seed in (("real", 1), ("fake", 2)):
        hidden = discriminator.b4["conv"](images(seed)).tanh().mean(dim=(2, 3))
        expected = discriminator.b4["fc"](hidden)
        assert (expected < 0).any(), "without a negative entry the in-place activation would change nothing"
        torch.testing.assert_close(captured[role].features, expected, rtol=0, atol=0)
        assert torch.equal(captured[role].seen, images(seed))
        assert captured[role].features.requires_grad
        assert not captured[role].seen.requires_grad


def test_gradient_of_the_features_reaches_the_layers_below(discriminator, images):
    captured = capture_both(FeatureTap(discriminator, ["b4.fc"]), discriminator, images(1), images(2))
    captured["real"].features.sum().backward()
    assert discriminator.b4["conv"].weight.grad.abs().sum() > 0


def test_images_given_by_keyword_are_seen(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real")):
        discriminator(c=torch.zeros(4, 2), img=images(1))
    with tap.capture(Rows.of("fake")):
        discriminator(images(2), torch.zeros(4, 2))
    captured = tap.drain()
    assert torch.equal(captured["real"].seen, images(1))
    assert torch.equal(captured["fake"].seen, images(2))


def test_several_calls_in_a_block_are_joined_in_order(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real"), clean=images(9)):
        discriminator(images(1)[:1])
        discriminator(images(1)[1:])
    with tap.capture(Rows.of("fake")):
        discriminator(images(2))
    captured = tap.drain()
    assert torch.equal(captured["real"].seen, images(1))
    assert torch.equal(captured["real"].clean, images(9))
    assert captured["fake"].clean is None
    torch.testing.assert_close(
        captured["real"].features,
        capture_both(tap, discriminator, images(1), images(2))["real"].features,
    )


def test_no_hook_outlives_the_block(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real")):
        assert traces_on(discriminator) == 2
        discriminator(images(1))
    assert traces_on(discriminator) == 0
    copy.deepcopy(discriminator)
    pickle.dumps(discriminator)


def test_no_hook_outlives_an_exception_and_the_next_step_starts_clean(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real")):
        discriminator(images(1))
    with pytest.raises(RuntimeError, match="channels"), tap.capture(Rows.of("fake")):
        discriminator(images(2, channels=2))
    assert traces_on(discriminator) == 0
    captured = capture_both(tap, discriminator, images(3), images(4))
    assert torch.equal(captured["real"].seen, images(3))
    assert torch.equal(captured["fake"].seen, images(4))


def test_reading_drains(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    capture_both(tap, discriminator, images(1), images(2))
    with pytest.raises(CaptureError, match=re.escape("nothing was captured for 'real': run D inside `with kd.capture")):
        tap.drain()


def test_a_missing_role_is_named(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real")):
        discriminator(images(1))
    with pytest.raises(CaptureError, match="nothing was captured for 'fake'"):
        tap.drain()


def test_the_layer_must_fire(discriminator):
    tap = FeatureTap(discriminator, ["b4.fc"])
    message = re.escape("the layer 'b4.fc' did not fire inside capture('real'): call D in the block")
    with pytest.raises(CaptureError, match=message), tap.capture(Rows.of("real")):
        pass


def test_an_abandoned_step_is_dropped_with_a_warning(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with tap.capture(Rows.of("real")):
        discriminator(images(1))
    with pytest.warns(
        UserWarning, match="'real' was captured again before kd\\(\\) was called, and what was captured first"
    ):
        captured = capture_both(tap, discriminator, images(3), images(4))
    assert torch.equal(captured["real"].seen, images(3))


def test_blocks_cannot_be_nested(discriminator):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with (
        pytest.raises(CaptureError, match="cannot be nested"),
        tap.capture(Rows.of("real")),
        tap.capture(Rows.of("fake")),
    ):
        pass


def test_unknown_layer_names_the_nearest(discriminator):
    message = re.escape("layer='b4.fcc' is not in the discriminator; nearest: 'b4.fc'")
    with pytest.raises(LayerError, match=message):
        FeatureTap(discriminator, ["b4.fcc"])


def test_unknown_layer_unlike_any_names_the_last_ones():
    wide = nn.Sequential(*(nn.Linear(1, 1) for _ in range(20)))
    with pytest.raises(
        LayerError, match=re.escape("not in the discriminator; its last ones: '15', '16', '17', '18', '19'")
    ):
        FeatureTap(wide, ["features"])


def test_the_discriminator_itself_is_no_layer(discriminator):
    with pytest.raises(LayerError, match="'' is not in the discriminator"):
        FeatureTap(discriminator, [""])


def test_a_layer_that_fires_twice_a_call(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.shared(self.shared(x))

    discriminator = Twice()
    tap = FeatureTap(discriminator, ["shared"])
    with pytest.raises(LayerError, match="'shared' gave 8 rows for 4 images"), tap.capture(Rows.of("real")):
        discriminator(images(1))


def test_clean_images_must_be_as_many(discriminator, images):
    tap = FeatureTap(discriminator, ["b4.fc"])
    with (
        pytest.raises(CaptureError, match="3 clean images, but D saw 4"),
        tap.capture(Rows.of("real"), clean=images(9, 3)),
    ):
        discriminator(images(1))


def test_looks_through_distributed_data_parallel(discriminator, images, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(discriminator)
        tap = FeatureTap(wrapped, ["b4.fc"])
        captured = capture_both(tap, wrapped, images(1), images(2))
        assert torch.equal(captured["fake"].seen, images(2))
        assert captured["real"].features.shape == (4, 6)
        assert traces_on(wrapped) == 0
    finally:
        torch.distributed.destroy_process_group()
