"""Our side of `benchmarks.step`: the trainer's own phases on random images."""

from __future__ import annotations

import copy
import json
import sys

import torch

from benchmarks.worker import LEARNING_RATE, serve
from torch_utils.device import pick_device
from torch_utils.gradients import NanWatch
from torch_utils.memory import keep_freed_memory
from torch_utils.ranks import ALONE
from torch_utils.stats import Stats, Stopwatch
from training.augment import DiffAugment
from training.config import resolve
from training.ema import update_ema
from training.networks import Discriminator, Generator
from training.phases import Batch, Players, make_phases
from training.precision import allow_tf32, set_precision


def main() -> None:
    options = json.loads(sys.argv[1])
    side, batch = options["resolution"], options["batch"]
    given = {name: options[name] for name in ("batch", "cbase", "cmax", "map_depth", "device")}
    config = resolve({"cfg": "stylegan2", "aug": "noaug", "lr": LEARNING_RATE, **given}, {"teacher": "none"}, side)
    device = pick_device(config.device)
    torch.manual_seed(0)
    allow_tf32(options["tf32"])
    shared = {
        "c_dim": 0,
        "img_resolution": side,
        "img_channels": 3,
        "channel_base": config.cbase,
        "channel_max": config.cmax,
        "num_fp16_res": options["num_fp16_res"],
        "conv_clamp": 256 if options["num_fp16_res"] else None,
    }
    G = Generator(z_dim=512, w_dim=512, mapping_layers=config.map_depth, **shared).to(device).requires_grad_(False)
    D = Discriminator(mbstd_group_size=4, **shared).to(device).requires_grad_(False)
    for network in (G, D):
        set_precision(network, options["precision"])
    if device.type == "cpu":
        keep_freed_memory()
    if options["channels_last"] or device.type == "cpu":
        G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    G_ema = copy.deepcopy(G).eval()

    def no_labels(count: int) -> torch.Tensor:
        return torch.zeros([count, 0], device=device)

    augment = DiffAugment("none")
    players = Players(
        G, D, augment, no_labels, None, None, None, Stats(), Stopwatch(device), NanWatch(device), ALONE,
        config.style_mixing, device,
    )  # fmt: skip
    images = Batch(torch.rand([batch, 3, side, side], device=device) * 2 - 1, no_labels(batch))
    phases = {phase.name: phase for phase in make_phases(config, players)}
    runs = {name: lambda phase=phase: phase.step([images]) for name, phase in phases.items()}
    serve({**runs, "EMA": lambda: update_ema(G_ema, G, 0.999)}, lambda: _wait(device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
