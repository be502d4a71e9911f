"""A GAN as methods of one module, as Lightning (manual optimisation) and accelerate expect it; distilled from CLIP.

D is compiled. The distillation is a submodule, so its head is moved, saved and resumed with everything else. A plain
GAN without the statements marked `# kd`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kd_plugin  # kd
from examples.common import load_images, save_samples
from examples.dcgan import generator


class Scores(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.GroupNorm(8, 2 * width),
            nn.SiLU(), nn.Flatten(), nn.Linear(2 * width * 64, 128), nn.SiLU(),
        )  # fmt: skip
        self.logit = nn.Linear(128, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.logit(self.features(images))


class GAN(nn.Module):
    """A LightningModule in Lightning: it owns networks and optimisers; the trainer calls `training_step`."""

    def __init__(self, teacher: str, z_dim: int, width: int, device: str, backend: str) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.G, self.D = generator(z_dim, width).to(device), Scores(width).to(device)
        self._compiled = [torch.compile(self.D, backend=backend)]  # in a list: D's weights are registered once
        self.kd = kd_plugin.attach(  # kd: before the compiled D's first call; the teacher goes where D is
            self._compiled[0], layer="features.6", teacher=teacher, terms={"agkd": 1.0}
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        d_parameters = list(self.D.parameters())
        d_parameters += self.kd.parameters()  # kd
        return (
            torch.optim.Adam(self.G.parameters(), lr=2e-4, betas=(0.5, 0.999)),
            torch.optim.Adam(d_parameters, lr=2e-4, betas=(0.5, 0.999)),
        )

    def training_step(self, real: Tensor, optimizers: tuple[torch.optim.Optimizer, ...]) -> dict[str, Any]:
        (opt_g, opt_d), (D,) = optimizers, self._compiled
        fake = self.G(torch.randn(len(real), self.z_dim, device=real.device))
        with self.kd.capture("real"):  # kd
            d_real = D(real)
        with self.kd.capture("fake"):  # kd
            d_fake = D(fake.detach())
        loss_d = F.softplus(-d_real).mean() + F.softplus(d_fake).mean()
        losses = {"D": loss_d.item()}
        distilled = self.kd(loss_d)  # kd
        loss_d = loss_d + distilled.total  # kd
        losses |= {name: value.item() for name, value in distilled.terms.items()}  # kd
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        loss_g = F.softplus(-D(fake)).mean()
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        return losses | {"G": loss_g.item()}


def train(
    folder: str, teacher: str, steps: int, batch: int, z_dim: int, width: int, device: str, backend: str, out: str,
    resume: str, checkpoint: str,
) -> list[dict[str, float]]:  # fmt: skip
    images, _, _ = load_images(folder, 32)
    gan = GAN(teacher, z_dim, width, device, backend)
    optimizers = gan.configure_optimizers()
    if resume:  # the head, the coin and the running statistics are in gan's own state
        state = torch.load(resume, weights_only=True)
        gan.load_state_dict(state["gan"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    history = [
        gan.training_step(images[torch.randint(len(images), [batch])].to(device), optimizers) for _ in range(steps)
    ]
    if checkpoint:
        torch.save({"gan": gan.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, checkpoint)
    if out:
        with torch.no_grad():
            save_samples(gan.G(torch.randn(64, z_dim, device=device)), out)
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
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--out", default="")
    parser.add_argument("--resume", default="")
    parser.add_argument("--checkpoint", default="")
    return train(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
