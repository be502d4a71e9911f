"""A run says when the teacher taught nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from tests.host.conftest import stats_of
from training.data.image_sets import open_held_out, open_training_set
from training.data.pixels import to_float
from training.monitors.learning import TICKS, LearningMonitor
from training.phases import Batch
from training.presets import resolve
from training.probing import probe_lines
from training.session import Session


def test_told_once_until_something_is_learnt():
    watch = LearningMonitor()
    told = [bool(watch.note(share)) for share in [-0.1, -0.2, 0.0, -0.1, -0.3, -0.1, 0.2, *[-0.1] * TICKS]]
    assert told == [False] * 4 + [True] + [False] * 2 + [False] * (TICKS - 1) + [True]


def test_the_warning_says_what_to_try():
    watch = LearningMonitor()
    lines = [line for _ in range(TICKS) for line in watch.note(-0.05)]
    assert len(lines) == 1
    for part in (
        "has learned nothing from the teacher so far",
        "-5.0%",
        "--kd-balance=1",
        "--gamma",
        "kd_plugin.probe",
    ):
        assert part in lines[0]


def test_no_figure_no_warning():
    watch = LearningMonitor()
    assert [watch.note(share) for share in [None, float("nan")] * 9] == [[]] * 18


def test_the_share_on_held_out_images_is_the_formula(drawings: Path) -> None:
    """By hand from D's feature, the head and the teacher; nothing of the run moves."""
    given = {"data": str(drawings), "cfg": "demo", "cbase": 64, "cmax": 16, "batch": 4, "holdout": 6, "device": "cpu"}
    config = resolve(given, {"teacher": "demo", "agkd": 1.0, "cgkd": 0.0}, 32)
    dataset = open_training_set(config.images)
    session = Session.build(config, dataset)
    before = {name: value.clone() for name, value in session.D.state_dict().items()}
    assert session.monitors.overfitting is not None
    assert session.kd is not None
    share = session.monitors.overfitting.stats(session.G, session.D, session.context.latents, 0)[
        "KD/explained_holdout"
    ].mean
    held_out = open_held_out(config.images)
    pixels, _ = held_out.gather(np.arange(6))
    images = to_float(torch.from_numpy(pixels))
    kept = []
    hook = session.D.b4.fc.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        for part in images.split(config.micro_batch):
            session.D(part, torch.zeros(len(part), 0))
        hook.remove()
        student, teacher = session.kd.head(torch.cat(kept)), session.kd.teacher.embed_images(images)
    off = (student - teacher).abs().mean()
    constant = (teacher - teacher.median(0).values).abs().mean()
    assert share == pytest.approx(float(1 - off / constant), rel=1e-4)
    assert session.kd.explained() == {}
    assert all(torch.equal(value, session.D.state_dict()[name]) for name, value in before.items())


def test_it_is_logged(run_train: Callable[..., Result], tmp_path: Path) -> None:
    assert run_train("--kd=demo", "--holdout=4").exit_code == 0
    lines = stats_of(next((tmp_path / "runs").iterdir()))
    assert all(line["KD/explained_holdout"]["mean"] < 1 for line in lines)


def test_view_clean_in_a_run_equals_itself_without_a_cache(
    run_train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--kd=demo", "--kd-view=clean", "--mirror", "--kimg=0.064")
    assert run_train(*flags, f"--outdir={tmp_path / 'kept'}").exit_code == 0
    monkeypatch.setattr(Batch, "indices", property(lambda self: None, lambda self, value: None), raising=False)
    monkeypatch.setattr(Batch, "split", lambda self, size: [self])
    assert run_train(*flags, f"--outdir={tmp_path / 'not'}").exit_code == 0
    kept, not_kept = (stats_of(next((tmp_path / name).iterdir())) for name in ("kept", "not"))
    for a, b in zip(kept, not_kept, strict=True):
        assert a["Loss/KD/agkd"]["mean"] == pytest.approx(b["Loss/KD/agkd"]["mean"], rel=1e-4)


def test_the_probe_before_a_run(
    run_train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.probe_lines", lambda *args: probe_lines(*args, steps=4))
    result = run_train("--kd=demo", "--kd-probe")
    assert result.exit_code == 0, result.output
    assert "Verdict:" in result.output
    assert "b8.conv1,b4.fc" in result.output
    assert not (tmp_path / "runs").exists()
    result = run_train("--kd-probe")
    assert result.exit_code == 2
    assert "--kd-probe: no teacher was given; give --kd, such as --kd=clip" in result.output
