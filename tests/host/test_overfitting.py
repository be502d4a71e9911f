"""The overfitting gap: its formula, where it stays away, and a discriminator that knows its images by heart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor, nn

from tests.host.conftest import stats_of
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_held_out, open_reference, open_training_set
from training.monitors.overfitting import WINDOW_TICKS, OverfittingMonitor, Scores, gap


def tick(train: float, holdout: float, fake: float, std: float = 0.5) -> tuple[Scores, Scores, Scores]:
    return Scores(100, train, std), Scores(25, holdout, std), Scores(25, fake, std)


def test_the_formula() -> None:
    assert gap([tick(2, 2, -2)]) == 0
    assert gap([tick(2, -2, -2)]) == 1
    assert gap([tick(3, 1, -1)]) == pytest.approx(0.5)
    assert gap([tick(4, 2, 0), tick(0, 0, -1)]) == pytest.approx((2 - 1) / (2 + 0.5))  # of the means


def test_absent_where_training_images_and_fakes_are_not_told_apart() -> None:
    assert gap([tick(0.1, -0.5, 0)]) is None  # 0.1 is within chance of 0
    assert gap([tick(-1, -1, 1)]) is None  # the wrong way round
    assert gap([tick(0, 0, 0, std=0)]) is None
    assert gap([tick(0.2, 0, 0)] * 16) == pytest.approx(1)  # what is unsure in one tick can be sure in many


class ByHeart(nn.Module):
    """+1 for the training images, -1 for all others; and what it was shown."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = {image.numpy().tobytes() for image in known}
        self.batches: list[int] = []

    def forward(self, images: Tensor, c: Tensor) -> Tensor:
        self.batches.append(len(images))
        pixels = ((images + 1) * 127.5).round().to(torch.uint8)
        return torch.tensor([[1.0 if image.numpy().tobytes() in self.known else -1.0] for image in pixels])


def latents(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 4), torch.zeros(count, 0)


class Grey(nn.Module):
    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.rand(len(z), 1, 1, 1).expand(-1, 3, 32, 32)


def test_a_discriminator_that_knows_its_images_by_heart(drawings: Path) -> None:
    train, held_out = ImageDataset(drawings, holdout=9), ImageDataset(drawings, holdout=9, held_out=True)
    D = ByHeart(torch.from_numpy(train.gather(torch.arange(15).numpy())[0]))
    watch = OverfittingMonitor(train, held_out, seed=0, batch=4, device=torch.device("cpu"))
    before = torch.get_rng_state()
    found = watch.stats(Grey(), D, latents, nimg=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: figure.mean for name, figure in found.items()} == {
        "Overfit/train": 1,
        "Overfit/holdout": -1,
        "Overfit/fake": -1,
        "Overfit/gap": 1,
    }
    assert D.batches == [4, 4, 4, 3, 4, 4, 1, 4, 4, 1]  # of one kind each
    assert [found[f"Overfit/{name}"].num for name in ("train", "holdout", "fake")] == [15, 9, 9]


def test_the_gap_is_of_a_window_that_survives_a_restart(drawings: Path) -> None:
    train, held_out = ImageDataset(drawings, holdout=9), ImageDataset(drawings, holdout=9, held_out=True)
    D = ByHeart(torch.from_numpy(train.gather(torch.arange(15).numpy())[0]))
    watch, again = (OverfittingMonitor(train, held_out, seed=0, batch=4, device=torch.device("cpu")) for _ in range(2))
    for nimg in range(WINDOW_TICKS + 3):
        found = watch.stats(Grey(), D, latents, nimg)
    assert found["Overfit/gap"].num == WINDOW_TICKS
    again.load_state_dict(watch.state_dict())
    assert again.stats(Grey(), D, latents, 99) == watch.stats(Grey(), D, latents, 99)


def options(data: Path | str, **given: Any) -> ImageOptions:
    return ImageOptions(str(data), **given)


def test_held_out_images_are_no_training_images_and_change_no_subset(drawings: Path) -> None:
    whole = open_training_set(options(drawings))
    train, held_out = open_training_set(options(drawings, holdout=9)), open_held_out(options(drawings, holdout=9))
    assert held_out is not None
    assert (len(train), len(held_out)) == (15, 9)
    assert not held_out.isin(train).any()
    assert whole.isin(train).sum() == 15
    few, same = (open_training_set(options(drawings, subset=10, holdout=holdout)) for holdout in (0, 9))
    assert few.isin(same).all()
    assert open_held_out(options(drawings)) is None
    assert open_reference(options(drawings), whole) is whole  # not opened, decoded and looked at twice
    assert open_reference(options(drawings), train) is not train
    reference = open_reference(options(drawings, holdout=9, subset=5, mirror=True))
    assert len(reference) == 24


def test_the_demo_set_has_fresh_drawings_to_hold_out_and_to_compare_with() -> None:
    train, held_out = open_training_set(options("demo", holdout=30)), open_held_out(options("demo", holdout=30))
    assert held_out is not None
    assert (len(train), len(held_out)) == (100, 30)
    assert not held_out.isin(train).any()


def test_a_run_reports_it_every_tick(run_train: Callable[..., Result], tmp_path: Path) -> None:
    result = run_train("--holdout=8", "--kimg=0.016")
    assert result.exit_code == 0, result.output
    (run_dir,) = (tmp_path / "runs").iterdir()
    lines = stats_of(run_dir)
    assert [line["Overfit/holdout"]["num"] for line in lines] == [8, 8]
    assert [line["Overfit/train"]["num"] for line in lines] == [16, 16]
    assert lines[0]["Overfit/fake"]["mean"] != lines[1]["Overfit/fake"]["mean"]
    assert "Held out:    8 images" in (run_dir / "log.txt").read_text()


def test_looking_changes_nothing(run_train: Callable[..., Result], tmp_path: Path) -> None:
    from training.checkpoint import load_state

    demo = ("--data=demo", "--kimg=0.024")
    assert run_train(*demo, "--holdout=0", f"--outdir={tmp_path / 'without'}").exit_code == 0
    assert run_train(*demo, "--holdout=8", f"--outdir={tmp_path / 'with'}").exit_code == 0
    without, with_ = (load_state(next((tmp_path / name).iterdir())) for name in ("without", "with"))
    for role in ("G", "D", "G_ema"):
        for name, value in without["parts"][role].items():
            assert torch.equal(value, with_["parts"][role][name]), f"{role}.{name}"
