"""Images in another range than [-1, 1] are converted if that is stated, and reported if it is not."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

from kd_plugin import KDError

RANGES = {(0, 1): lambda x: (x + 1) / 2, (0, 255): lambda x: (x + 1) * 127.5, (-1, 1): lambda x: x}


def steps(kd, d, images, convert, count=10, fake=lambda x: x, clean=False):
    for step in range(count):
        for role, seed in (("real", 2 * step), ("fake", 2 * step + 1)):
            shown = convert(images(seed)) if role == "real" else fake(convert(images(seed)))
            with kd.capture(role, clean=shown if clean else None):
                d(shown)
        kd()


@pytest.mark.parametrize("given", RANGES)
@pytest.mark.parametrize("view", ["seen", "clean"])
def test_the_teacher_sees_the_same(attach, discriminator, images, teacher, given, view):
    kd = attach(terms={"agkd": 1.0, "match": 1.0}, image_range=given, view=view)
    convert = RANGES[given]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(kd, discriminator, images, convert, clean=view == "clean")
        fake = images(2).requires_grad_()
        total = kd.for_generator(convert(fake), convert(images(1))).total
    torch.testing.assert_close(teacher.calls[0], torch.cat([images(0), images(1)]), rtol=0, atol=1e-6)
    expected = images(2).requires_grad_()
    other = attach(terms={"agkd": 1.0, "match": 1.0}).for_generator(expected, images(1)).total
    torch.testing.assert_close(total, other)
    for a, b in zip(*(torch.autograd.grad(loss, x) for loss, x in ((total, fake), (other, expected))), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("stated", "actual", "view", "message"),
    [
        ((-1, 1), (0, 1), "seen", "where [-1, 1] is expected, so the teacher sees other images than D; pass"),
        ((-1, 1), (0, 1), "clean", "pass image_range=(0, 1) to attach()"),
        ((-1, 1), (0, 255), "seen", "pass image_range=(0, 255) to attach()"),
        ((-1, 1), (0, 255), "clean", "pass image_range=(0, 255) to attach()"),
        ((0, 1), (-1, 1), "clean", "where [0, 1] is expected, so the teacher sees other images"),
        ((0, 255), (-1, 1), "clean", "pass image_range=(-1, 1) to attach()"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("carried", [False, True])
def test_another_range_is_reported_once(attach, discriminator, images, stated, actual, view, message, carried):
    kd = attach(terms={"agkd": 1.0}, image_range=stated, view=view, carried=carried)
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        steps(kd, discriminator, images, RANGES[actual], clean=view == "clean")
    assert len([w for w in caught if "real images have values from" in str(w.message)]) == 1


def test_real_images_of_the_generators_step_count_too(attach, images):
    kd = attach(terms={"match": 1.0}, view="clean")
    with pytest.warns(UserWarning, match="real images have values from 0.* to 255; pass|real images have values from"):
        kd.for_generator(images(2), RANGES[0, 255](images(1)))


@pytest.mark.parametrize(
    ("view", "real", "fake"),
    [
        ("clean", lambda x: x, lambda x: 1.6 * x),  # generated images beyond the range
        ("seen", lambda x: 1.5 * x, lambda x: x),  # colour augmentation
        ("clean", lambda x: 1.04 * x, lambda x: x),  # resizing overshoots
    ],
)
def test_what_is_normal_stays_silent(attach, discriminator, images, view, real, fake):
    kd = attach(terms={"agkd": 1.0}, view=view)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(kd, discriminator, images, real, fake=fake, clean=view == "clean")


def test_bright_batches_alone_are_no_reason(attach, discriminator, images):
    kd = attach(terms={"agkd": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(kd, discriminator, images, RANGES[0, 1], count=7)
        steps(kd, discriminator, images, lambda x: x)


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0,), "01", None, 255])
def test_what_is_no_range(attach, given):
    with pytest.raises(KDError, match=r"image_range=.*: give the values of black and white, such as \(0, 1\)"):
        attach(image_range=given)
