"""The other side of `benchmarks.step`: the same phases with the networks and the loss of an official checkout.

Written from its interfaces: constructor arguments, `accumulate_gradients(phase, ...)` and what its loop does around it.
"""

from __future__ import annotations

import copy
import json
import sys
import types
import warnings
from typing import Any

import torch

from benchmarks.worker import LEARNING_RATE, serve  # it imports no module whose name the checkout has too


def main() -> None:
    options = json.loads(sys.argv[1])
    sys.path.insert(0, options["official"])
    warnings.filterwarnings("ignore")
    sys.modules.setdefault("requests", types.ModuleType("requests"))  # it downloads with it; nothing is downloaded
    networks, loss_of = _official()
    device = torch.device("cuda" if options["device"] == "auto" and torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options["tf32"]
    side, batch = options["resolution"], options["batch"]
    G, D = _networks(networks, options, device)
    G_ema = copy.deepcopy(G).eval()
    loss = loss_of(
        device=device,
        G_mapping=G.mapping,
        G_synthesis=G.synthesis,
        D=D,
        augment_pipe=None,
        style_mixing_prob=0.9,
        r1_gamma=10,
        pl_weight=2,
    )
    images = torch.rand([batch, 3, side, side], device=device) * 2 - 1
    labels = torch.zeros([batch, 0], device=device)
    optimizers = {G: _adam(G, 4), D: _adam(D, 16)}

    def step(phase: str, network: torch.nn.Module, interval: int) -> None:
        optimizer = optimizers[network]
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        z = torch.randn([batch, 512], device=device)
        loss.accumulate_gradients(
            phase=phase, real_img=images, real_c=labels, gen_z=z, gen_c=labels, sync=True, gain=interval
        )
        network.requires_grad_(False)
        for parameter in network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()

    def average() -> None:
        for kept, now in zip(G_ema.parameters(), G.parameters(), strict=True):
            kept.copy_(now.lerp(kept, 0.999))
        for kept, now in zip(G_ema.buffers(), G.buffers(), strict=True):
            kept.copy_(now)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    phases = {"Gmain": (G, 1), "Greg": (G, 4), "Dmain": (D, 1), "Dreg": (D, 16)}
    runs = {name: lambda name=name, args=args: step(name, *args) for name, args in phases.items()}
    serve({**runs, "EMA": average}, wait)


def _networks(networks: Any, options: dict[str, Any], device: torch.device) -> tuple[Any, Any]:
    low = {"num_fp16_res": options["num_fp16_res"], "conv_clamp": 256 if options["num_fp16_res"] else None}
    width = {"channel_base": options["cbase"], "channel_max": options["cmax"]}
    shared = {"c_dim": 0, "img_resolution": options["resolution"], "img_channels": 3}
    G = networks.Generator(
        z_dim=512,
        w_dim=512,
        mapping_kwargs={"num_layers": options["map_depth"]},
        synthesis_kwargs={**width, **low},
        **shared,
    )
    D = networks.Discriminator(epilogue_kwargs={"mbstd_group_size": 4}, **width, **low, **shared)
    return tuple(network.train().requires_grad_(False).to(device) for network in (G, D))  # type: ignore[return-value]


def _official() -> tuple[Any, Any]:
    from training import networks  # type: ignore[attr-defined]
    from training.loss import StyleGAN2Loss  # type: ignore[import-not-found]

    return networks, StyleGAN2Loss


def _adam(network: torch.nn.Module, interval: int) -> torch.optim.Adam:
    c = interval / (interval + 1)
    return torch.optim.Adam(network.parameters(), lr=LEARNING_RATE * c, betas=(0.0, 0.99**c), eps=1e-8)


if __name__ == "__main__":
    main()
