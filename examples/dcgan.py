"""A DCGAN (Radford et al. 2016) at 32 px, distilled from CLIP; a plain DCGAN without the statements marked `# kd`."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn

import kd_plugin  # kd
from examples.common import load_images, save_samples


def generator(z_dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (z_dim, 1, 1)),
        nn.ConvTranspose2d(z_dim, 4 * width, 4), nn.BatchNorm2d(4 * width), nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def discriminator(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(4 * width, 1, 4), nn.Flatten(),
    )  # fmt: skip


def train(
    folder: str, teacher: str, steps: int, batch: int, z_dim: int, width: int, device: str, out: str
) -> list[dict[str, float]]:
    """Returns the losses of every step."""
    images, _, _ = load_images(folder, 32)
    images = images.to(device)
    G, D = generator(z_dim, width).to(device), discriminator(width).to(device)
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))

    # print(*kd_plugin.list_layers(D, images[:2]), sep="\n") names layers and widths.
    kd = kd_plugin.attach(D, layer="7", width=4 * width, teacher=teacher, terms={"agkd": 1.0, "match": 1.0})  # kd
    opt_d.add_param_group({"params": kd.parameters()})  # kd

    history = []
    for _ in range(steps):
        real = images[torch.randint(len(images), [batch])]
        fake = G(torch.randn(batch, z_dim, device=device))

        with kd.capture("real"):  # kd
            d_real = D(real)
        with kd.capture("fake"):  # kd
            d_fake = D(fake.detach())
        loss_d = F.softplus(-d_real).mean() + F.softplus(d_fake).mean()
        losses = {"D": loss_d.item()}
        distilled = kd(loss_d)  # kd
        loss_d = loss_d + distilled.total  # kd
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        loss_g = F.softplus(-D(fake)).mean()
        losses["G"] = loss_g.item()
        matched = kd.for_generator(fake, real, loss_g)  # kd
        loss_g = loss_g + matched.total  # kd
        losses |= {name: value.item() for name, value in {**distilled.terms, **matched.terms}.items()}  # kd
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        history.append(losses)
    print(f"explained: {kd.explained()}")  # kd
    if out:
        with torch.no_grad():
            save_samples(G(torch.randn(64, z_dim, device=device)), out)
    return history


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--teacher", default="clip")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--z-dim", type=int, default=100)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="")
    return train(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
