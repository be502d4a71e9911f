"""A detector file and a dataset, both tiny and our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn


class Colours(nn.Module):
    """Means of the three channels over each quarter of the image: 12 features, and classes made of them."""

    def forward(self, pixels: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert return_features != no_output_bias
        means = nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)
        return means if return_features else (means * 20).softmax(1)


@pytest.fixture(scope="session")
def detector_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "colours.pt"
    torch.jit.script(Colours()).save(str(path))
    return path


@pytest.fixture(scope="session")
def images_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 images of 8 x 8 pixels of noise around grey."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(50):
        Image.fromarray(rng.integers(90, 166, (8, 8, 3), np.uint8)).save(folder / f"{k:02d}.png")
    return folder
