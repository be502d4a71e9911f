"""What distillation hands to the device beside the teacher's work: counted, since a GPU at small sizes waits for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.operations import operations
from kd_plugin.balance import EVERY

AGKD = {"terms": {"agkd": 1.0}, "norm": "none", "centre": False, "balance": 0.0}
BOTH = {"terms": {"agkd": 1.0, "cgkd": 1.0}, "norm": "standardise", "centre": True, "balance": 0.0}


@pytest.mark.parametrize(("options", "most"), [(AGKD, 35), (BOTH, 100), (BOTH | {"balance": 0.3}, 115)])
def test_a_step_is_few_operations(options, most, attach, discriminator, images, teacher):
    kd = attach(p=0, **options)
    real, fake = images(1), images(2)

    def adversarial() -> Tensor:
        with kd.capture("real"):
            d_real = discriminator(real)
        with kd.capture("fake"):
            d_fake = discriminator(fake)
        return d_fake.mean() - d_real.mean()

    def taught() -> None:
        loss = adversarial()
        (loss + kd(loss).total).backward()

    def plain() -> None:
        (discriminator(fake).mean() - discriminator(real).mean()).backward()

    for _ in range(EVERY + 1):  # a balance measures in each of the first steps, and then seldom
        taught()
    looking = operations(lambda: teacher.embed_images(torch.cat([real, fake])))
    glue = operations(taught) - operations(plain) - looking
    assert glue <= most, f"{glue} operations"
