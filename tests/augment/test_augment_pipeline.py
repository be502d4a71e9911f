"""The ADA pipeline as a whole: p = 0 changes nothing, two derivatives, every group, what it says to wrong settings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from training.augment import AUGPIPES, AugmentPipe, AugmentSpec, augpipe


def _pipe(p: float, **spec: float) -> AugmentPipe:
    pipe = AugmentPipe(**spec)
    pipe.p.fill_(p)
    return pipe


@pytest.mark.parametrize("name", AUGPIPES)
@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (3, 3, 24, 40), (2, 1, 17, 16)], ids=str)
def test_every_group_on_every_shape(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images = torch.rand(shape) * 2 - 1
    augmented = _pipe(0.9, **augpipe(name))(images)
    assert augmented.shape == images.shape
    assert augmented.dtype == images.dtype
    assert augmented.isfinite().all()
    assert not torch.equal(augmented, images)


def test_p_zero_returns_the_same_tensor() -> None:
    images = torch.rand(2, 3, 16, 16)
    state = torch.get_rng_state()
    assert _pipe(0, **augpipe("bgcfnc"))(images) is images
    assert torch.equal(torch.get_rng_state(), state)


def test_images_that_draw_no_transform_are_passed_on_to_the_bit() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 16, 16) * 2 - 1
    augmented = _pipe(0.1, **augpipe("bgcfnc"))(images)
    same = sum(torch.equal(a, b) for a, b in zip(augmented, images, strict=True))
    assert 5 <= same <= 40  # of 64, with probability .9^18 times what draws that come out neutral add: about 1/4


def test_changes_of_p_are_seen() -> None:
    images = torch.rand(4, 3, 16, 16)
    pipe = _pipe(0, brightness=1)
    assert pipe(images) is images
    pipe.p.fill_(1)
    assert not torch.equal(pipe(images), images)
    pipe.load_state_dict({"p": torch.tensor(0.0)})
    assert pipe(images) is images
    pipe.p = torch.tensor(1.0)
    assert not torch.equal(pipe(images), images)
    twin = copy.deepcopy(pipe)
    twin.p.zero_()
    assert twin(images) is images
    assert not torch.equal(pipe(images), images)


def test_a_seed_repeats_the_augmentation() -> None:
    images = torch.rand(4, 3, 16, 16)
    pipe = _pipe(0.8, **augpipe("bgcfnc"))
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(pipe(images))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_two_derivatives(p: float) -> None:
    """Also the probe that this torch's grid_sample can be differentiated twice, which R1 needs."""
    pipe = _pipe(p, **augpipe("bgcfnc"))

    def augment(images: Tensor) -> Tensor:
        torch.manual_seed(3)
        return pipe(images)

    images = (torch.rand(2, 3, 4, 5, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert not torch.equal(augment(images), images)
    assert torch.autograd.gradcheck(augment, (images,))
    assert torch.autograd.gradgradcheck(augment, (images,), fast_mode=True)


def test_penalty_through_augmentation() -> None:
    """R1: the penalty's gradient reaches the weights behind the augmentation, as finite differences say."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    weight = torch.randn(3, 8, 8, dtype=torch.float64, requires_grad=True)
    pipe = _pipe(0.9, **augpipe("bgc"))

    def penalty(weight: Tensor) -> Tensor:
        torch.manual_seed(1)
        real = images.clone().requires_grad_()
        score = (pipe(real) * weight).sum(dim=(1, 2, 3)).tanh().sum()
        (grad,) = torch.autograd.grad(score, real, create_graph=True)
        return grad.square().sum()

    assert torch.autograd.gradcheck(penalty, (weight,), fast_mode=True)


def test_groups_are_the_papers() -> None:
    assert "|".join(AUGPIPES) == "blit|geom|color|filter|noise|cutout|bg|bgc|bgcf|bgcfn|bgcfnc"
    assert len(AUGPIPES["bgcfnc"]) == len(set(AUGPIPES["bgcfnc"])) == 15
    switches = {field for field in AugmentSpec.__dataclass_fields__ if getattr(AugmentSpec(), field) == 0}
    assert set(AUGPIPES["bgcfnc"]) == switches


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"^--augpipe: unknown group of transforms 'bgcc'; nearest: 'bgc'"):
        augpipe("bgcc")
    with pytest.raises(TypeError, match="rotate91"):
        AugmentPipe(rotate91=1)
    with pytest.raises(ValueError, match=r"^hue: expected a finite number >= 0, got -1"):
        AugmentPipe(hue=-1)
    with pytest.raises(ValueError, match=r"^imgfilter_bands: expected 4 multipliers, low to high, got \[1, 1\]"):
        AugmentPipe(imgfilter=1, imgfilter_bands=[1, 1])
