"""How much of the teacher does D learn from N images? Distillation alone, without a GAN.

    python -m studies.transfer --drawings=100 --diffaugment=color,translation,cutout

A new D of the demo learns the demo's teacher on N drawings (both see the same augmented images) and is tested on 500
drawings it never saw. Prints a row of the table in studies/notebook.md.
"""

from __future__ import annotations

import click
import torch
from torch import Tensor

from benchmarks.host import session_of
from kd_plugin import load_teacher
from kd_plugin.diffaugment import DiffAugment
from kd_plugin.probe.trial import ProbeStudent, TrialOptions
from training.cli import script
from training.data.pixels import to_float
from training.drawings.family import draw

UNSEEN, SERIES, BATCH = 500, 900, 32
LEARNING_RATE = 2e-3  # StyleGAN2's


def drawings(count: int, series: int) -> Tensor:
    return torch.stack([to_float(torch.from_numpy(draw(number, series).pixels)) for number in range(count)])


@click.command()
@click.option("--drawings", "count", default=100, show_default=True)
@click.option("--diffaugment", "policy", default="none", show_default=True)
@click.option("--steps", default=1000, show_default=True)
@click.option("--layers", default="b8.conv1,b4.fc", show_default=True)
@script
def main(count: int, policy: str, steps: int, layers: str) -> None:
    teacher = load_teacher("demo")
    known, unseen = drawings(count, SERIES + 1), drawings(UNSEEN, SERIES)
    look = torch.no_grad()(teacher.embed_images)
    d = session_of(32, cfg="demo", device="cpu").D
    options = TrialOptions(lambda x: (x, torch.zeros(len(x), 0)), BATCH, lr=LEARNING_RATE)
    student = ProbeStudent(d, layers, "linear", look(known), options)
    augment = DiffAugment(policy)
    torch.manual_seed(0)
    for _ in range(steps):
        images = augment(known[torch.randint(count, [BATCH])])
        student.train_step(images, look(images))
    of_known, of_unseen = (student.fraction_explained(images, look(images)) for images in (known[:UNSEEN], unseen))
    click.echo(f"| {count} | {policy} | {steps} | {of_known:.2f} | {of_unseen:.2f} |")


if __name__ == "__main__":
    main()
