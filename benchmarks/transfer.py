"""What limits what D learns of its teacher: the number of images, or what it is shown of them?

    python -m benchmarks.transfer --drawings=100 --diffaugment=color,translation,cutout

Distillation alone, without a game: a fresh D of the demo is taught the demo's teacher on so many drawings, both looking
at the same augmented images, and asked about 500 drawings it never saw.
"""

from __future__ import annotations

import click
import torch
from torch import Tensor

from benchmarks.host import session_of
from dnnlib.cli import user_errors
from kd_plugin import load_teacher
from kd_plugin.heads import make_head, student_width
from kd_plugin.losses import AGKD
from kd_plugin.measuring import distances, share
from kd_plugin.records import Pairs
from kd_plugin.spaces import Space
from kd_plugin.tap import FeatureTap
from kd_plugin.teachers.base import Teacher
from training.augment.diffaugment import DiffAugment
from training.drawings.family import draw
from training.pixels import to_float

UNSEEN, SERIES, BATCH = 500, 900, 32


class Pupil:
    """D, its tap and a linear head, learning from a teacher."""

    def __init__(self, layers: str, teacher: Teacher, known: Tensor) -> None:
        self.d = session_of(32, cfg="demo", device="cpu").D.requires_grad_(True)
        self.tap = FeatureTap(self.d, layers.split(","))
        width = sum(student_width(module) or 0 for module in self.tap.layers.values())
        self.head = make_head("linear", width, teacher.embed_dim, seed=0)
        self.teacher, self.loss = teacher, AGKD()
        self.space = Space("standardise", False, teacher.embed_dim)
        self.space.observe(teacher.embed_images(known))
        self.adam = torch.optim.Adam([*self.d.parameters(), *self.head.parameters()], lr=2e-3, betas=(0.0, 0.99))

    def pairs(self, images: Tensor) -> Pairs:
        with self.tap.capture("real"):
            self.d(images, torch.zeros(len(images), 0))
        student = self.head(self.tap.release().features)
        with torch.no_grad():
            return self.space.compared(Pairs(student, self.teacher.embed_images(images)))

    def learn(self, images: Tensor) -> None:
        pairs = self.pairs(images)
        self.adam.zero_grad()
        torch.autograd.backward(self.loss.distance(pairs.student, pairs.teacher))
        self.adam.step()

    @torch.no_grad()
    def share(self, images: Tensor) -> float:
        parts = [self.pairs(part) for part in torch.split(images, BATCH)]
        student, teacher = (torch.cat(rows) for rows in zip(*((p.student, p.teacher) for p in parts), strict=True))
        return share(*distances(self.loss, student, teacher))


def drawings(count: int, series: int) -> Tensor:
    return torch.stack([to_float(torch.from_numpy(draw(number, series).pixels)) for number in range(count)])


@click.command()
@click.option("--drawings", "count", default=100, show_default=True)
@click.option("--diffaugment", "policy", default="none", show_default=True)
@click.option("--steps", default=1000, show_default=True)
@click.option("--layers", default="b8.conv1,b4.fc", show_default=True)
@user_errors
def main(count: int, policy: str, steps: int, layers: str) -> None:
    teacher = load_teacher("demo")
    known, unseen = drawings(count, SERIES + 1), drawings(UNSEEN, SERIES)
    pupil, augment = Pupil(layers, teacher, known), DiffAugment(policy)
    torch.manual_seed(0)
    for _ in range(steps):
        pupil.learn(augment(known[torch.randint(count, [BATCH])]))
    of_known, of_unseen = (pupil.share(images) for images in (known[:UNSEEN], unseen))
    click.echo(f"| {count} | {policy} | {steps} | {of_known:.2f} | {of_unseen:.2f} |")


if __name__ == "__main__":
    main()
