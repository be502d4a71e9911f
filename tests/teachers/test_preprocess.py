"""The tensor preprocessing against PIL's, which is what CLIP's own transform uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kd_plugin.teachers.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, resize_and_crop

# Not among them: images over twice as high as wide, which Pillow 13 shrinks in the other order (columns first).
SIZES = [(64, 64, 32), (48, 80, 32), (80, 48, 32), (74, 37, 32), (20, 20, 32), (17, 40, 32), (40, 17, 32)]
SIZES += [(256, 256, 224), (32, 32, 224), (32, 32, 32), (32, 47, 32), (33, 32, 32), (40, 300, 32)]


def pil_resize_and_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """[H, W, 3] uint8 -> [size, size, 3] uint8: torchvision's Resize(size, BICUBIC) and CenterCrop(size), on PIL."""
    image = Image.fromarray(pixels)
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def pictures(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([np.sin(x / 9 + y / 7), np.cos(x / 5), np.sin(y / 11)], axis=-1) * 127 + 128
    return {
        "smooth": smooth.astype(np.uint8),
        "noise": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        # Nothing but black and white: the filter overshoots at nearly every pixel, and PIL clips after each pass.
        "extreme": rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255),
    }


def to_images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
@pytest.mark.parametrize("kind", ["smooth", "noise", "extreme"])
def test_resize_and_crop_agrees_with_pil_within_8_bit_rounding(kind: str, height: int, width: int, size: int) -> None:
    pixels = pictures(height, width)[kind]
    expected = pil_resize_and_crop(pixels, size).astype(np.float64)
    ours = resize_and_crop((to_images(pixels) + 1) / 2, size)[0].permute(1, 2, 0).double().numpy() * 255
    # PIL rounds after each of its two passes: by up to 0.5 after the first, which the second may enlarge to 0.7 (the
    # weights of a bicubic filter sum to 1, their magnitudes to up to 1.4), and by 0.5 again.
    assert ours.shape == (size, size, 3)
    assert np.abs(ours - expected).max() < 1.2
    assert np.abs(ours - expected).mean() < 0.4
    assert abs((ours - expected).mean()) < 0.05  # no shift and no bias


def test_preprocess_normalises_as_clip_does() -> None:
    pixels = pictures(48, 80)["smooth"]
    expected = pil_resize_and_crop(pixels, 32) / 255.0
    expected = (expected - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array(
        [0.26862954, 0.26130258, 0.27577711]
    )
    ours = Preprocess(32)(to_images(pixels))[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).max() < 1.2 / 255 / 0.26


def test_preprocess_takes_other_means_and_a_batch() -> None:
    images = torch.rand(3, 3, 40, 30) * 2 - 1
    unit = resize_and_crop((images + 1) / 2, 16)
    torch.testing.assert_close(
        Preprocess(16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))(images)[:, 1], unit[:, 1] * 4 - 2
    )
    torch.testing.assert_close(Preprocess(16)(images)[1], Preprocess(16)(images[1:2])[0])


def test_values_out_of_range_count_as_the_range_ends_and_get_no_gradient() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., :4], images[..., 4:] = -3.0, 5.0
    images.requires_grad_(True)
    result = Preprocess(8)(images)
    torch.testing.assert_close(result[0, :, 0, 0], -torch.tensor(CLIP_MEAN) / torch.tensor(CLIP_STD))
    torch.testing.assert_close(result[0, :, 0, 7], (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD))
    (gradient,) = torch.autograd.grad(result.square().sum(), images)
    assert not gradient.any()


@pytest.mark.parametrize(("height", "width", "size"), [(6, 9, 4), (4, 3, 5), (4, 4, 4)])
def test_gradient(height: int, width: int, size: int) -> None:
    torch.manual_seed(0)
    images = (torch.rand(2, 3, height, width, dtype=torch.float64) - 0.5).requires_grad_(True)  # far from the clipping
    assert torch.autograd.gradcheck(Preprocess(size), images)
    assert torch.autograd.gradgradcheck(lambda x: Preprocess(size)(x).square(), images)
