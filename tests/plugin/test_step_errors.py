"""What a training step says when it cannot be distilled."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from kd_plugin import CaptureError, TeacherError


def test_view_clean_without_clean_images(attach):
    with pytest.raises(CaptureError, match=re.escape("view='clean': capture('fake') needs the images before")):
        attach(view="clean").capture("fake")


def test_a_missing_role(attach, discriminator, images):
    kd = attach()
    with kd.capture("real"):
        discriminator(images(1))
    with pytest.raises(CaptureError, match="nothing was captured for 'fake'"):
        kd()


def test_unequal_batches(attach, discriminator, images, run):
    message = re.escape("3 real and 4 fake images were captured, but crossed pairs need equal numbers")
    with pytest.raises(CaptureError, match=message):
        run(attach(p=0.01), discriminator, images(1, 3), images(2, 4))
    assert run(attach(p=0), discriminator, images(1, 3), images(2, 4)).total > 0
    assert run(attach(terms={"cgkd": 1.0}), discriminator, images(1, 3), images(2, 4)).total > 0


def test_views_of_a_discriminator_without_an_image_tensor(attach, images, run):
    flat = nn.Sequential(nn.Linear(192, 6))
    for view in ("seen", "auto"):
        message = re.escape(f"view='{view}': D was given no image tensor [N, C, H, W]; use view='clean'")
        with pytest.raises(CaptureError, match=message):
            run(attach(flat, layer="0", view=view), flat, images(1).flatten(1), images(2).flatten(1))
    for view in ("clean", "auto"):
        kd = attach(flat, layer="0", view=view)
        step = run(kd, flat, images(1).flatten(1), images(2).flatten(1), clean=(images(1), images(2)))
        assert step.total > 0


def test_view_auto_with_clean_images_in_some_blocks(attach, discriminator, images):
    for first, message in (
        (images(1), "needs the images before augmentation, as earlier blocks had"),
        (None, "earlier blocks had none"),
    ):
        kd = attach(view="auto")
        with kd.capture("real", clean=first):
            discriminator(images(1))
        with pytest.raises(CaptureError, match=message):
            kd.capture("fake", clean=images(2) if first is None else None)


def test_nan_is_blamed_on_its_source(attach, discriminator, teacher, images, run):
    broken = images(2).clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(TeacherError, match="NaN or infinity in the images it saw"):
        run(attach(), discriminator, images(1), broken)
    with pytest.raises(TeacherError, match="NaN or infinity in the images it saw"):
        attach(terms={"diversity": 1.0}).for_generator(broken)
    teacher.network[1].bias.data[0] = float("nan")
    with pytest.raises(TeacherError, match="NaN or infinity from the teacher 'fake'"):
        run(attach(), discriminator, images(1), images(2))


def test_a_teacher_of_another_width_than_it_says(attach, discriminator, teacher, images, run):
    kd = attach()
    teacher.embed_dim = 7
    with pytest.raises(TeacherError, match=re.escape("gave image embeddings of the shape [8, 6]; expected [8, 7]")):
        run(kd, discriminator, images(1), images(2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "the teacher's images are torch.uint8; expected floating point"),
        (torch.zeros(4, 2, 8, 8), "the teacher's images have the shape [8, 2, 8, 8]; expected [N, 3, H, W] (RGB)"),
    ],
)
def test_what_is_no_image(attach, discriminator, images, wrong, message, run):
    kd = attach(view="clean")
    with pytest.raises(TeacherError, match=re.escape(message)):
        run(kd, discriminator, images(1), images(2), clean=(wrong, wrong))
