"""A judge that shares neither images nor labels with the teachers: trained without labels on photos of its own.

    python -m studies.train_judge --data=cifar10-5k-32.zip --out=judge.pt --steps=1500
    python -m studies.train_judge --check=judge.pt --reals=cats.zip --others=dogs.zip

A residual network of 1.1 M parameters learns to recognise an image among others after cropping, flipping and changing
its colours (SimCLR: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020).
Written as TorchScript that metrics can use: `--detector=judge.pt`. --check prints the Frechet distances from one half
of the real images to the other half, to another subject, and to the other half after damage.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dnnlib.errors import UserError
from training.cli import script
from training.data.dataset import ImageDataset
from training.metrics.frechet import Moments, frechet_distance

SIDE, WIDTH, OUT = 32, 256, 64
TEMPERATURE, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0.2, 128, 0.03, 5e-4


class Block(nn.Module):
    """Halves the side; the sum of a linear and a two-layer path."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(narrow, wide, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.path(x) + self.shortcut(x)).relu()


class Judge(nn.Module):
    """uint8 [N, 3, H, W] -> float32 [N, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            Block(32, 64), Block(64, 128), Block(128, WIDTH), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip

    def forward(self, images: Tensor, return_features: bool = True) -> Tensor:
        small = images.float()
        if images.shape[2] != 32 or images.shape[3] != 32:
            small = functional.interpolate(small, [32, 32], mode="bilinear", antialias=True, align_corners=False)
        return self.trunk(small / 127.5 - 1)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [N, 3, 32, 32] in [0, 255], cropped to 25 to 100 % of its area, flipped and recoloured at random."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(images), generator=generator) * (high - low) + low

    side = uniform(0.25, 1.0).sqrt()
    flip = uniform(-1, 1).sign()
    shift_x, shift_y = (uniform(-1, 1) * (1 - side) for _ in range(2))
    zero = torch.zeros_like(side)
    theta = torch.stack([side * flip, zero, shift_x, zero, side, shift_y], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (uniform(0.6, 1.4).view(-1, 1, 1, 1) for _ in range(3))
    saturation = torch.where(uniform(0, 1).view(-1, 1, 1, 1) < 0.2, torch.zeros_like(saturation), saturation)
    tint = torch.rand(len(images), 3, 1, 1, generator=generator) * 0.4 + 0.8
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * saturation
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((mean + (images - mean) * contrast) * brightness * tint).clamp(0, 255)


def contrastive_loss(a: Tensor, b: Tensor) -> Tensor:
    """Of projections [N, D] of two views: each should be nearest to the other of its image, among 2 N - 1."""
    rows = functional.normalize(torch.cat([a, b]))
    similar = rows @ rows.T / TEMPERATURE
    similar.fill_diagonal_(float("-inf"))
    return functional.cross_entropy(similar, torch.arange(2 * len(a)).roll(len(a)))


def train(images: Tensor, steps: int) -> Judge:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    judge = Judge()
    head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, OUT))
    parameters = [*judge.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 10 * LEARNING_RATE, total_steps=max(steps, 1))
    for step in range(steps):
        batch = images[torch.randint(len(images), [BATCH], generator=generator)].float()
        views = torch.cat([augmented(batch, generator), augmented(batch, generator)])
        loss = contrastive_loss(*head(judge(views)).chunk(2))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            click.echo(f"step {step}: loss {loss.item():.3f}")
    return judge.eval()


@torch.no_grad()
def check(path: Path, reals: Tensor, others: Tensor) -> None:
    """Print the distances from one half of the real images."""
    judge = torch.jit.load(str(path)).eval()
    generator = torch.Generator().manual_seed(0)
    half, other = reals[::2], reals[1::2]

    def noisy(deviation: float) -> Tensor:
        return (other + torch.randn(other.shape, generator=generator) * deviation).clamp(0, 255)

    def blurred(side: int) -> Tensor:
        small = functional.interpolate(other.float(), [side, side], mode="bilinear", antialias=True)
        return functional.interpolate(small, list(other.shape[2:]), mode="bilinear")

    sets = {
        "other half": other, "other subject": others, "noise, sd 10": noisy(10), "noise, sd 25": noisy(25),
        "blurred to half": blurred(reals.shape[2] // 2), "blurred to a quarter": blurred(reals.shape[2] // 4),
        "20 images repeated": other[torch.arange(len(other)) % 20],
        "random pixels": torch.rand(other.shape, generator=generator) * 255,
    }  # fmt: skip
    features = {name: judge(images.byte()).double() for name, images in {"": half, **sets}.items()}
    of_half = moments(features.pop(""))
    for name, rows in features.items():
        click.echo(f"{name}: {frechet_distance(of_half, moments(rows)):.2f}")


def moments(rows: Tensor) -> Moments:
    result = Moments()
    result.add(rows)
    return result


def pixels(path: str) -> Tensor:
    """uint8 [N, 3, 32, 32], resized if need be."""
    dataset = ImageDataset(path, resolution=SIDE)
    return torch.from_numpy(dataset.gather(np.arange(len(dataset)))[0])


@click.command(help=__doc__)
@click.option("--data", metavar="ZIP", help="Photos to train on")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.pt", help="Where to write the judge")
@click.option("--steps", default=1500, show_default=True)
@click.option("--check", "checked", type=click.Path(path_type=Path), metavar="FILE.pt", help="Judge to check")
@click.option("--reals", metavar="ZIP", help="With --check: photos")
@click.option("--others", metavar="ZIP", help="With --check: photos of another subject")
@script
def main(
    data: str | None, out: Path | None, steps: int, checked: Path | None, reals: str | None, others: str | None
) -> None:
    if data and out:
        torch.jit.script(train(pixels(data), steps)).save(str(out))
    elif checked and reals and others:
        check(checked, pixels(reals), pixels(others))
    else:
        raise UserError("give --data and --out to train a judge, or --check, --reals and --others to check one")


if __name__ == "__main__":
    main()
