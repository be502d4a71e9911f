"""A class-conditional ResNet GAN with projection discriminator and hinge loss (Miyato & Koyama 2018), with CLIP.

Two discriminator steps per generator step, each over two micro-batches; the teacher sees clean images; diversity
acts on the generator through the frozen teacher. A plain GAN without the statements marked `# kd`.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import kd_plugin  # kd
from examples.common import load_images, save_samples

D_STEPS, MICRO_BATCHES = 2, 2


class Up(nn.Module):
    """Batch norm with a scale and shift for each class, upsampling, two convolutions, a skip."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.norm(x) * self.scale(y)[:, :, None, None] + self.shift(y)[:, :, None, None]
        h = self.first(F.interpolate(h.relu(), scale_factor=2.0))
        return F.interpolate(x, scale_factor=2.0) + self.second(h.relu())


class Generator(nn.Module):
    def __init__(self, z_dim: int, width: int, classes: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.start = nn.Linear(z_dim, width * 16)
        self.blocks = nn.ModuleList(Up(width, classes) for _ in range(3))
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.start(z).view(len(z), -1, 4, 4)
        for block in self.blocks:
            x = block(x, y)
        return self.out(x.relu()).tanh()


class Down(nn.Module):
    def __init__(self, before: int, after: int, shrink: bool) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(before, after, 1))
        self.shrink = shrink

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x.relu()).relu()) + self.skip(x)
        return F.avg_pool2d(h, 2) if self.shrink else h


class Discriminator(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Down(3, width, True), Down(width, width, True), Down(width, width, False))
        self.linear = spectral_norm(nn.Linear(width, 1))
        self.embed = spectral_norm(nn.Embedding(classes, width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.blocks(x).relu().sum(dim=(2, 3))  # [N, width]
        return self.linear(h) + (self.embed(y) * h).sum(dim=1, keepdim=True)


def train(
    folder: str, teacher: str, steps: int, batch: int, z_dim: int, width: int, device: str, out: str
) -> list[dict[str, float]]:
    images, labels, names = load_images(folder, 32)
    images, labels = images.to(device), labels.to(device)
    G, D = Generator(z_dim, width, len(names)).to(device), Discriminator(width, len(names)).to(device)
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.0, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.0, 0.999))
    prompts = [f"a photo of a {name}" for name in names] + ["a photo", "a drawing", "something small"]  # kd
    kd = kd_plugin.attach(  # kd
        D, layer="blocks", width=width, teacher=teacher, prompts=prompts, view="clean", balance=0.5,
        terms={"agkd": 1.0, "cgkd": 1.0, "diversity": 0.1},
    )  # fmt: skip
    opt_d.add_param_group({"params": kd.parameters()})  # kd

    def fakes(count: int) -> tuple[Tensor, Tensor]:
        y = labels[torch.randint(len(labels), [count])]
        return G(torch.randn(count, z_dim, device=device), y), y

    history = []
    for _ in range(steps):
        for _ in range(D_STEPS):
            opt_d.zero_grad()
            kd.begin_step()  # kd: the micro-batches below are one step
            for _ in range(MICRO_BATCHES):
                rows = torch.randint(len(images), [batch // MICRO_BATCHES])
                flipped = images[rows].flip(3)  # the augmentation; the teacher sees the clean images
                with torch.no_grad():
                    fake, y_fake = fakes(len(rows))
                with kd.capture("real", clean=images[rows], keys=rows):  # kd: each real image is embedded once
                    d_real = D(flipped, labels[rows])
                with kd.capture("fake", clean=fake):  # kd
                    d_fake = D(fake.flip(3), y_fake)
                adversarial = F.relu(1 - d_real).mean() + F.relu(1 + d_fake).mean()
                losses = {"D": adversarial.item()}
                distilled = kd(adversarial)  # kd
                adversarial = adversarial + distilled.total  # kd
                (adversarial / MICRO_BATCHES).backward()
            opt_d.step()
        fake, y_fake = fakes(batch)
        loss_g = -D(fake, y_fake).mean()
        losses["G"] = loss_g.item()
        diversity = kd.for_generator(fake)  # kd
        loss_g = loss_g + diversity.total  # kd
        losses |= {name: value.item() for name, value in {**distilled.terms, **diversity.terms}.items()}  # kd
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        history.append(losses)
    print(f"explained: {kd.explained()}")  # kd
    if out:
        with torch.no_grad():
            save_samples(fakes(64)[0], out)
    return history


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="images in one sub-folder per class")
    parser.add_argument("--teacher", default="clip")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--z-dim", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="")
    return train(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
