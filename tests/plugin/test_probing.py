"""The probe on teachers whose answer is known: one that sees colours, one that says something else of every image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kd_plugin import KDError
from kd_plugin.probe.__main__ import main
from kd_plugin.probe.report import Trial
from kd_plugin.probe.run import probe_teacher, what_fits
from kd_plugin.probe.stand_in import StandIn
from training.drawings import DemoSpec, write_demo_set


class Colours:
    """Knows the mean colour of each quarter, far from zero."""

    name, fingerprint, embed_dim, vocabulary = "colours", "0" * 64, 12, ()

    def embed_images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * 3 + 20

    def embed_texts(self, texts: object) -> Tensor:
        raise AssertionError


class Tint(Colours):
    """Knows the mean colour: of a mirrored or moved image the same."""

    name, embed_dim = "tint", 3

    def embed_images(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


class Hash(Colours):
    """Something else for every image, mirrored or moved ones too."""

    name = "hash"

    def embed_images(self, images: Tensor) -> Tensor:
        seeds = [int(image.double().cumsum(2).sum() * 1e6) % 2**31 for image in images]
        return torch.stack([torch.randn(12, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def patches(n: int = 60) -> Tensor:
    """Images of four coloured quarters, and some noise."""
    draws = torch.Generator().manual_seed(0)
    quarters = torch.rand(n, 3, 2, 2, generator=draws) * 1.6 - 0.8
    noise = torch.rand(n, 3, 16, 16, generator=draws) * 0.2
    return torch.nn.functional.interpolate(quarters, (16, 16)) + noise


def discriminator() -> StandIn:
    torch.manual_seed(0)
    return StandIn(16, max_channels=24)


def test_what_can_be_learned_is_found() -> None:
    d = discriminator()
    before = {name: value.clone() for name, value in d.state_dict().items()}
    report = probe_teacher(d, Colours(), patches(), batch=8, steps=60)
    assert report.best is not None
    assert report.best.held_out > 0.2
    assert report.best.training >= report.best.held_out
    assert report.knowledge.reliability > 0.3
    assert report.knowledge.constant > 0.9
    assert report.knowledge.directions > 6
    assert "the discriminator can predict" in report.verdict
    assert [trial.layer for trial in report.trials[:4]] == ["b4.fc", "b8.conv1", "b16.conv1", "b8.conv1,b4.fc"]
    assert [trial.head for trial in report.trials] == ["linear"] * 4 + ["mlp", "orthogonal"]
    assert f"--kd-layer={report.best.layer}" in report.flags()
    assert "--kd-cgkd=0" in report.flags()  # it reads no texts
    assert all(torch.equal(value, before[name]) for name, value in d.state_dict().items())
    lines = "\n".join(report.lines())
    assert "<- best" in lines
    assert "Try:         --kd-layer=" in lines


def test_a_teacher_that_knows_nothing_is_called_so() -> None:
    report = probe_teacher(discriminator(), Hash(), patches(), batch=8, steps=40)
    assert report.best is not None
    assert report.best.held_out <= 0.01
    assert abs(report.knowledge.reliability) < 0.3
    assert report.verdict == "hash does not tell these images apart: their embeddings are nearly equal"
    assert not any(line.startswith("Try") for line in report.lines())


def test_where_nothing_transfers_the_generator_is_left() -> None:
    report = probe_teacher(discriminator(), Tint(), patches(20), batch=8, steps=1)
    assert report.best is not None
    assert report.best.held_out <= 0.01
    assert "in 1 steps this discriminator learned nothing from tint" in report.verdict
    assert report.flags() == ("--kd-agkd=0", "--kd-cgkd=0")


def test_a_slow_discriminator_is_not_judged_by_a_few_steps() -> None:
    """Five steps of each would say that nothing can be learned, and take longer than was asked for."""
    said: list[str] = []
    report = probe_teacher(discriminator(), Tint(), patches(20), batch=8, seconds=1e-3, on_message=said.append)
    assert report.trials == ()
    assert report.best is None
    assert report.flags() == ()
    assert report.needed > 1e-3
    assert report.verdict.startswith("tint tells these images apart; there was no time to test what")
    assert f"takes {report.needed:.0f} seconds (--seconds, in train.py --kd-probe)" in report.verdict
    lines = "\n".join(report.lines())
    assert "Learnable" not in lines
    assert "Cost:" in lines
    assert said == ["tint embeds 20 images, each three times"]


def test_trials_are_as_long_as_the_time_allows() -> None:
    assert what_fits(60, 0.0625, 6) == (6, 160)
    assert what_fits(60, 0.0078125, 6) == (6, 600)
    assert what_fits(60, 0.5, 6) == (2, 60)  # 20 steps of each would tell nothing
    assert what_fits(60, 3, 6) == (0, 0)
    said: list[str] = []
    probe_teacher(discriminator(), Tint(), patches(20), batch=4, steps=2, on_message=said.append)
    assert said[1].startswith("6 trials of 2 steps, about ")


def test_prompts_of_a_teacher_that_reads(make_teacher) -> None:
    report = probe_teacher(discriminator(), make_teacher(), patches(20), batch=8, steps=6)
    assert 2 <= len(report.prompts) <= 32
    assert 0 < report.flat < 1
    assert any(line.startswith("Prompts:") for line in report.lines())


def test_what_the_report_advises(make_teacher) -> None:
    report = probe_teacher(discriminator(), make_teacher(), patches(20), batch=8, steps=6)

    def flags(held_out: float, reliability: float = 0.9, **changes: object) -> tuple[str, ...]:
        trials = (Trial("b4.conv", "linear", 0.9, held_out / 2, 6), Trial("b4.fc", "mlp", 0.5, held_out, 6))
        knowledge = dataclasses.replace(report.knowledge, reliability=reliability)
        return dataclasses.replace(report, **{"trials": trials, "knowledge": knowledge, **changes}).flags()

    assert flags(0.4) == ("--kd-layer=b4.fc", "--kd-head=mlp", "--kd-prompts=auto")
    assert flags(0.4, prompts=()) == ("--kd-layer=b4.fc", "--kd-head=mlp", "--kd-cgkd=0")
    assert flags(0.0) == ("--kd-agkd=0", "--kd-cgkd=0")  # the matching of the generator is left
    assert flags(0.0, reliability=0.1) == ()
    assert flags(0.4, trials=()) == ()


def test_labels(make_teacher) -> None:
    class Conditional(StandIn):
        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return super().forward(x) * c.sum()

    report = probe_teacher(
        Conditional(16, max_channels=8),
        Colours(),
        patches(20),
        batch=8,
        steps=6,
        inputs=lambda x: (x, torch.ones(len(x), 2)),
    )
    assert report.trials


def test_no_time() -> None:
    with pytest.raises(KDError, match="--seconds: -1 was given, it must be above 0"):
        probe_teacher(discriminator(), Colours(), patches(20), seconds=-1)


def test_the_teacher_looks_at_each_image_three_times(make_teacher) -> None:
    """As it is, mirrored, and moved; what the prompts and the cost need is known by then."""
    teacher, shown = make_teacher(), []
    embed = teacher.embed_images
    teacher.embed_images = lambda images: shown.append(len(images)) or embed(images)
    probe_teacher(discriminator(), teacher, patches(20), batch=8, steps=1)
    assert sum(shown) == 3 * 20


def test_nothing_else_gets_gradients() -> None:
    """What D is called with may depend on parameters of somebody else."""
    shift = torch.zeros(1, requires_grad=True)
    probe_teacher(discriminator(), Tint(), patches(20), batch=8, steps=1, inputs=lambda x: (x + shift,))
    assert shift.grad is None


def test_too_few_images() -> None:
    with pytest.raises(KDError, match="9 images are too few to hold some out; give at least 10"):
        probe_teacher(discriminator(), Colours(), patches(9))


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "drawings.zip"
    write_demo_set(path, DemoSpec(count=30, series=5))
    return path


def test_the_command(drawings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([f"--data={drawings}", "--kd=demo", "--resolution=32", "--seconds=1", "--batch=4", "--device=cpu"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "Teacher:     demo, 30 images" in out
    assert "Verdict:" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=nothing.zip"], "--data: 'nothing.zip' is neither a folder nor a zip that can be read"),
        (["--data=tests", "--resolution=48"], "--resolution: 48 was given, it must be a power of two"),
        (["--data=kd_plugin"], "--data: 'kd_plugin' holds no images"),
        (["--data=DRAWINGS", "--kd=dmo"], "unknown teacher 'dmo'; nearest: 'demo'"),
        (["--data=DRAWINGS", "--discriminator=os:nothing_d"], "--discriminator=os:nothing_d: 'os' has no 'nothing_d'"),
    ],
)
def test_mistakes(flags: list[str], message: str, drawings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag.replace("DRAWINGS", str(drawings)) for flag in flags]
    with pytest.raises(SystemExit) as end:
        main(["--kd=demo", *flags])
    assert end.value.code == 2
    assert f"Error: {message}" in capsys.readouterr().err.replace("--kd=dmo: ", "")


class Staged(Colours):
    """Stages: noise, and the image's mean colour, which a mirrored and moved copy shares."""

    stage_names = ("noise", "colour")
    shown = 0

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        self.shown += len(images)
        colour = images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 2, 2)
        made = {"noise": torch.randn(len(images), 3, 2, 2), "colour": colour}
        return self.embed_images(images), [made[name] for name in names]


def test_the_reliability_of_each_stage() -> None:
    teacher = Staged()
    report = probe_teacher(discriminator(), teacher, patches(40), steps=1)
    assert report.knowledge.stages["colour"] == pytest.approx(1, abs=1e-6)
    assert abs(report.knowledge.stages["noise"]) < 0.5
    assert "its stages (--kd-match-on): noise " in "\n".join(report.lines())
    assert teacher.shown == 2 * 40
    plain = probe_teacher(discriminator(), Colours(), patches(40), steps=1)
    assert plain.knowledge == dataclasses.replace(report.knowledge, stages={})
    assert "its stages" not in "\n".join(plain.lines())
