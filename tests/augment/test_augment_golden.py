"""The ADA pipeline against the official implementation's outputs and input gradients (tests/data/augment.npz)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.augment import AugmentPipe, geometry
from training.augment.filter import band_filters

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "augment.npz")
CASES = json.loads(str(GOLDEN["cases"]))


def _name(case: dict) -> str:
    return f"{case['input']}-{'+'.join(case['kwargs'])}-{case['percentile']}"


def _golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", CASES, ids=_name)
@pytest.mark.parametrize("dense_limit", [geometry.DENSE_LIMIT, 0], ids=["dense", "filter-op"])
def test_output_and_gradient(case: dict, dense_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "DENSE_LIMIT", dense_limit)
    images = _golden(case["input"]).requires_grad_()
    augmented = AugmentPipe(**case["kwargs"])(images, debug_percentile=case["percentile"])
    (grad,) = torch.autograd.grad(augmented, images, _golden(f"ct{case['i']}"))
    # float32 sampling positions are off by some 1e-6 of the image's width: about 1e-5 in the values of white noise
    torch.testing.assert_close(augmented, _golden(f"y{case['i']}"), rtol=0, atol=5e-5)
    torch.testing.assert_close(grad, _golden(f"gx{case['i']}"), rtol=0, atol=8e-5)


def test_wavelet_filters() -> None:
    np.testing.assert_allclose(geometry.SYM6, GOLDEN["Hz_geom"], atol=1e-7)
    np.testing.assert_allclose(band_filters(), GOLDEN["Hz_fbank"], atol=1e-7)
