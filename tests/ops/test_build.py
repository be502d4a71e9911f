"""What is said when the kernels cannot be built: one line, once, and plain torch is used."""

import shutil

import pytest
import torch

from torch_utils.ops import build


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """A machine with a GPU, on which nothing was tried yet."""
    for cached in (build._outcome, build.kernels_or_none):
        cached.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield
    for cached in (build._outcome, build.kernels_or_none):
        cached.cache_clear()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(build.KernelsUnavailable, match="this machine lacks ninja, c\\+\\+"):
        build.kernels()


def test_a_failing_build_is_one_line_and_tried_once(monkeypatch):
    from torch.utils import cpp_extension

    tries = []

    def fail(**arguments):
        tries.append(arguments)
        raise RuntimeError(
            "Error building extension\nFAILED: x.o\nupfirdn2d.cu(3): error: no such thing\nninja: stopped"
        )

    monkeypatch.setattr(shutil, "which", lambda tool: f"/bin/{tool}")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/cuda")
    monkeypatch.setattr(cpp_extension, "load", fail)
    with pytest.warns(UserWarning, match="no such thing|Error building") as warned:
        assert build.kernels_or_none() is None
    assert "\n" not in str(warned[0].message)
    assert "plain torch is used instead, more slowly" in str(warned[0].message)
    assert build.kernels_or_none() is None
    with pytest.raises(build.KernelsUnavailable):
        build.kernels()
    assert len(tries) == 1
    assert all(source.endswith((".cpp", ".cu")) for source in tries[0]["sources"])


def test_modules_have_the_official_names() -> None:
    """Code for official checkouts runs: there `torch_utils.ops.NAME` is a module."""
    from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

    x = torch.arange(16.0).view(1, 1, 4, 4) - 8
    torch.testing.assert_close(bias_act.bias_act(x, act="lrelu", gain=1.0), torch.where(x < 0, 0.2 * x, x))
    f = upfirdn2d.setup_filter([1, 1])
    torch.testing.assert_close(upfirdn2d.downsample2d(x, f), torch.nn.functional.avg_pool2d(x, 2))
    w = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(conv2d_resample.conv2d_resample(x, w, f=f, down=2), upfirdn2d.downsample2d(x, f))
