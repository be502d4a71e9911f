"""Some steps of a run as one of several processes, whose draws are slices of those that one process alone would make.

Flags: --spoil (a weight of process 1 differs), --differ (an option does), --nan (a loss of the last process is NaN).

Every process writes its weights to OUT/<rank>.pt. The optimisers are plain SGD: Adam's first steps are signs of the
gradients, and would blow a difference in the last bit up to a whole step.
"""

from __future__ import annotations

from pathlib import Path

import torch

from kd_plugin import Distiller
from torch_utils.ranks import Ranks, joined_ranks
from torch_utils.seeding import seed_step
from training.data.dataset import ImageDataset
from training.data.pixels import to_float
from training.data.sampler import make_loader
from training.loop import train_step
from training.phases import Batch, Phase, StepContext
from training.presets import resolve
from training.session import Session

STEPS = 5  # ADA's p moves in the fourth


def joint_draws(ranks: Ranks) -> None:
    """Has what the phases draw drawn for all processes, and gives this one its share."""
    draws, randn = torch.Generator().manual_seed(0), torch.randn  # other draws depend on how many images there are

    def share(size: list[int]) -> torch.Tensor:
        return randn([size[0] * ranks.world, *size[1:]], generator=draws)[ranks.rank :: ranks.world].contiguous()

    torch.randn_like = lambda like: share(list(like.shape))  # type: ignore[assignment]
    StepContext.latents = lambda self, count: (share([count, self.G.z_dim]), self.sample_labels(count))  # type: ignore[method-assign]


def spoil_one_loss(phase: Phase) -> None:
    """The next loss is NaN, those after it are not."""
    loss = phase.loss

    def spoilt(batch: Batch) -> torch.Tensor:
        phase.loss = loss  # type: ignore[method-assign]
        return loss(batch) * float("nan")

    phase.loss = spoilt  # type: ignore[method-assign]


def main(out: Path, data: Path, *flags: str) -> None:
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        steps(ranks, out, data, *flags)


def steps(ranks: Ranks, out: Path, data: Path, *flags: str) -> None:
    dataset = ImageDataset(data)
    given = {
        "cfg": "demo", "data": str(data), "batch": 8, "gpus": ranks.world, "mbstd_group": 2, "cbase": 256, "cmax": 32,
        "aug": "ada", "ada_kimg": 1.0, "lecam": 0.3, "pl_weight": 2, "gamma": 1, "holdout": 0,
    }  # fmt: skip
    if "--differ" in flags:
        given["gamma"] = 1 + ranks.rank
    config = resolve(
        given,
        {
            "teacher": "demo",
            "p": 0.7,
            "cgkd": 1.0,
            "agkd": 1.0,
            "match_on": "stages",
            "match_grid": "2",
            "match_memory": 0,  # tests/plugin/ddp_step.py has one
            "critic": 0.5,
            "critic_grid": "2",
            "critic_augment": "none",
        },
        dataset.resolution,
    )
    session = Session.build(config, dataset, ranks)
    if "--spoil" in flags and ranks.rank == 1:
        session.D.b4.fc.weight.data[0, 0] += 1
    session.require_agreement()
    for phase in session.phases:
        phase.optimizer = torch.optim.SGD(phase.parameters, lr=0.01)
    assert isinstance(session.kd, Distiller)
    critic = session.kd.terms["critic"]
    session.kd._on_g._optimizers["critic"] = torch.optim.SGD(critic.parameters(), lr=0.01)
    joint_draws(ranks)
    loader = make_loader(dataset, config.batch, seed=0, rank=ranks.rank, world=ranks.world)
    for step in range(STEPS):
        seed_step(0, 0, step)
        pixels, labels, indices = next(loader)
        real = to_float(pixels)
        if "--nan" in flags and ranks.rank == ranks.world - 1 and step == 1:
            spoil_one_loss(session.phases[0])
        train_step(session, Batch(real, labels, indices))
        if ranks.world > 1:
            session.require_agreement()
    weights = {
        f"{role}.{name}": value for role, net in session.networks().items() for name, value in net.state_dict().items()
    }
    parts = session.state_dict()["parts"]
    torch.save(
        {"weights": weights, "kd": session.kd.state_dict(), "ada": parts["ada"], "lecam": parts["lecam"]["means"],
         "path_length": parts["path_length"]["mean_length"],
         "stats": session.context.stats.drain(ranks)["Loss/scores/real"].mean,
         "nan_steps": session.context.nans.drain()},
        out / f"{ranks.rank}.pt",
    )  # fmt: skip
