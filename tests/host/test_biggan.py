"""BigGAN in the trainer: everything that StyleGAN2 has works with it, or is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from generate import generate
from tests.host.conftest import stats_of
from train import main
from training.checkpoint import load_snapshot
from training.config import TrainConfig
from training.data.dataset import ImageDataset
from training.loop import train_step
from training.phases import Batch
from training.presets import resolve
from training.session import Session

ROOT = Path(__file__).parents[2]
BIGGAN = ["--cfg=biggan_cifar", "--batch=4", "--cmax=8", "--kimg=0.032", "--tick=0.016", "--snap=1"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 16x16 pictures, red and blue, in folders of a zip."""
    path = tmp_path_factory.mktemp("data") / "classes.zip"
    draws = torch.Generator().manual_seed(0)
    with zipfile.ZipFile(path, "w") as file:
        for name, channel in (("a cat", 0), ("a moon", 2)):
            for index in range(12):
                pixels = (torch.rand([16, 16, 3], generator=draws) * 80).byte().numpy()
                pixels[..., channel] += 150
                picture = io.BytesIO()
                Image.fromarray(pixels).save(picture, "png")
                file.writestr(f"{name}/{index}.png", picture.getvalue())
    return path


@pytest.fixture
def run(classes: Path, tmp_path: Path) -> Callable[..., Result]:
    """train.py in this process, with small networks; results go to tmp_path/runs."""
    torch.set_num_threads(1)

    def call(*flags: str) -> Result:
        given = [f"--data={classes}", f"--outdir={tmp_path / 'runs'}", *BIGGAN, *flags]
        return CliRunner().invoke(main, given)

    return call


def configured(classes: Path, kd: dict[str, Any] | None = None, **given: Any) -> TrainConfig:
    small = {"cfg": "biggan_cifar", "data": str(classes), "batch": 4, "cmax": 8, **given}
    return resolve(small, kd or {"teacher": "none"}, 16)


def built(config: TrainConfig, classes: Path) -> Session:
    return Session.build(config, ImageDataset(classes, use_labels=config.cond, mirror=config.mirror))


def batches(session: Session, count: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(1)
    images = [torch.rand([4, 3, 16, 16], generator=draws) * 2 - 1 for _ in range(count)]
    labels = torch.eye(2)[torch.tensor([0, 1, 1, 0])] if session.config.cond else torch.zeros(4, 0)
    return [Batch(image, labels, torch.arange(4)) for image in images]


def states(session: Session) -> dict[str, Tensor]:
    return {
        f"{role}.{name}": value.clone()
        for role, network in session.networks().items()
        for name, value in network.state_dict().items()
    }


def same(before: dict[str, Tensor], now: dict[str, Tensor], prefix: str = "") -> bool:
    return all(torch.equal(before[name], now[name]) for name in before if name.startswith(prefix))


def test_g_steps_once_in_four(classes: Path) -> None:
    session = built(configured(classes), classes)
    moved = []
    for batch in batches(session, 8):
        before = {name: value.clone() for name, value in session.G.named_parameters()}
        d_before = session.D.linear.weight.clone()  # type: ignore[union-attr]
        train_step(session, batch)
        moved.append(not same(before, dict(session.G.named_parameters())))
        assert not torch.equal(d_before, session.D.linear.weight)  # type: ignore[union-attr, arg-type]
    assert moved == [True, False, False, False] * 2


def test_the_average_is_a_copy_until_it_starts(classes: Path) -> None:
    """And its batch statistics are averaged with its weights."""
    session = built(configured(classes, ema_start=0.008, ema_kimg=0.01), classes)
    first, second, third = batches(session, 3)
    for batch in (first, second):
        train_step(session, batch)
        assert same(session.G.state_dict(), session.G_ema.state_dict())
    before, name = session.G_ema.state_dict()["blocks.0.0.bn1.stored_mean"].clone(), "blocks.0.0.bn1.stored_mean"
    train_step(session, third)
    beta = 0.5 ** (4 / 10)
    expected = beta * before + (1 - beta) * session.G.state_dict()[name]
    torch.testing.assert_close(session.G_ema.state_dict()[name], expected)
    assert not torch.equal(expected, session.G.state_dict()[name])


@pytest.mark.parametrize(
    "flags",
    [
        ["--lecam=0.3"],
        ["--aug=ada", "--p=0.5"],
        ["--kd=demo", "--kd-view=clean", "--kd-critic=1"],
        ["--kd=demo", "--kd-variant=release"],
        ["--cond=false", "--mirror=false", "--holdout=4"],
    ],
    ids=["lecam", "ada", "default", "release", "no-classes"],
)
def test_a_continued_run_equals_one_that_was_not_stopped(
    run: Callable[..., Result], tmp_path: Path, flags: list[str]
) -> None:
    found = []
    for name, kimgs in (("whole", ["--kimg=0.032"]), ("parts", ["--kimg=0.016", "--kimg=0.032"])):
        for kimg in kimgs:
            outdir = tmp_path / name
            result = run(f"--outdir={outdir}", *flags, kimg, "--resume=latest")
            assert result.exit_code == 0, result.output
        (run_dir,) = outdir.iterdir()
        snapshot = load_snapshot(run_dir / "network-snapshot-000000.032.safetensors", roles=("G", "D", "G_ema"))
        found.append({f"{role}.{k}": v for role, n in snapshot.networks.items() for k, v in n.state_dict().items()})
        assert len(stats_of(run_dir)) == 2
    assert same(*found)


def test_a_teacher_without_weight_changes_nothing(classes: Path) -> None:
    """Building and attaching look through D: singular vectors must not move."""
    off = {"teacher": "demo", "agkd": 0.0, "cgkd": 0.0, "match": 0.0, "critic": 0.0, "diversity_on": "off"}
    sessions = [built(configured(classes, kd), classes) for kd in ({"teacher": "none"}, off)]
    for session in sessions:
        for batch in batches(session, 3):
            torch.manual_seed(session.nimg)
            train_step(session, batch)
    assert same(*map(states, sessions))


def test_looking_for_overfitting_changes_nothing(classes: Path) -> None:
    session = built(configured(classes, holdout=4), classes)
    train_step(session, batches(session, 1)[0])
    before, monitor = states(session), session.monitors.overfitting
    assert monitor is not None
    monitor.stats(session.G, session.D, session.context.latents, session.nimg)
    assert same(before, states(session))


def test_two_processes_make_one_run(classes: Path, tmp_path: Path) -> None:
    """Batch norm's statistics are averaged and the singular vectors agree, which the save checks."""
    command = [
        sys.executable,
        "train.py",
        f"--data={classes}",
        f"--outdir={tmp_path}",
        *BIGGAN,
        "--gpus=2",
        "--kd=demo",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Finished at") == 1


def test_images_of_a_class_are_made_one_by_one_as_in_a_batch(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run().exit_code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    network = str(run_dir / "network-snapshot-000000.032.safetensors")
    pictures = []
    for batch in (1, 3):
        made = generate(
            network=network, seeds="0-2", class_="a moon", batch=batch, outdir=str(tmp_path / f"out{batch}")
        )
        pictures.append([Image.open(path).tobytes() for path in made.images])
    assert pictures[0] == pictures[1]
    other = generate(network=network, seeds="0-2", class_="a cat", outdir=str(tmp_path / "other"))
    assert [Image.open(path).tobytes() for path in other.images] != pictures[0]


def test_a_run_starts_from_another_ones_weights(
    run: Callable[..., Result], run_train: Callable[..., Result], tmp_path: Path
) -> None:
    assert run().exit_code == 0
    snapshot = next((tmp_path / "runs").rglob("*.safetensors"))
    warm = run(f"--resume={snapshot}")
    assert warm.exit_code == 0, warm.output
    assert "G: 100.0% of the weights taken over" in warm.output
    other = run_train(f"--resume={snapshot}")
    assert other.exit_code == 2
    assert "the snapshot has --model=biggan, this run stylegan2" in other.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pl-weight=2"], "--pl-weight=2 is for a generator with a w; with --model=biggan give --pl-weight=0"),
        (["--style-mixing=0.9"], "with --model=biggan give --style-mixing=0"),
        (["--w-dim=64"], "--w-dim has no effect in this run; give --model=stylegan2, or leave --w-dim out"),
        (["--num-fp16-res=2"], "--num-fp16-res has no effect in this run"),
        (["--precision=bf16"], "--precision=bf16"),
        (["--model=bigan"], "--model: 'bigan' is unknown; nearest: 'biggan'"),
        (["--resolution=4"], "--resolution: 4 is not a power of two of at least 8"),
        (["--freezed=99"], "--freezed: 99 was given, but the discriminator's blocks have 7 layers"),
    ],
)
def test_what_biggan_does_not_have_is_refused(run: Callable[..., Result], flags: list[str], message: str) -> None:
    result = run(*flags)
    assert result.exit_code == 2, result.output
    assert message in result.output
