"""train.py end to end, in small: the run folder, resuming, and distillation at weight 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from tests.host.conftest import stats_of
from training import loop, phases
from training.checkpoint import load_snapshot, load_state, save_snapshot
from training.data.dataset import ImageDataset
from training.presets import resolve
from training.session import Session

RunTrain = Callable[..., Result]


def only_run(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """Of the newest snapshot."""
    snapshot = load_snapshot(max(run_dir.glob("network-snapshot-[0-9]*.safetensors")), roles=("G", "D", "G_ema"))
    return {
        f"{role}.{name}": value
        for role, network in snapshot.networks.items()
        for name, value in network.state_dict().items()
    }


def assert_equal_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.full_pictures
def test_the_run_folder(run_train: RunTrain, tmp_path: Path) -> None:
    result = run_train("--kd=demo")
    assert result.exit_code == 0, result.output
    run_dir = only_run(tmp_path)
    assert run_dir.name == "00000-drawings-demo-kd-demo"
    assert {path.name for path in run_dir.iterdir() if not path.name.startswith("events.")} == {  # TensorBoard's
        "config.json",
        "log.txt",
        "stats.jsonl",
        "reals.png",
        "views.png",
        "chart.png",
        "fakes_init.png",
        "fakes000000.008.png",
        "fakes000000.016.png",
        "network-snapshot-000000.008.safetensors",
        "network-snapshot-000000.016.safetensors",
        "training-state.pt",
    }
    assert "a photo of a" in (run_dir / "log.txt").read_text()
    lines = stats_of(run_dir)
    assert [line["Progress/kimg"]["mean"] for line in lines] == [0.008, 0.016]
    expected = {
        "Progress/tick", "Timing/sec_per_kimg", "Resources/peak_mem_gb", "Loss/G/loss", "Loss/D/loss",
        "Loss/scores/real", "Loss/scores/fake", "Loss/r1_penalty", "Loss/KD/agkd", "Loss/KD/cgkd", "Loss/KD/total",
        "Timing/kd_fraction", "Timing/data_fraction", "Loss/KD/grad_ratio", "KD/explained",
    }  # fmt: skip
    assert expected <= lines[0].keys()
    for figure in (figure for line in lines for name, figure in line.items() if name != "timestamp"):
        assert set(figure) == {"num", "mean", "std"}
        assert np.isfinite([figure["mean"], figure["std"]]).all()
    assert lines[0]["Loss/scores/real"]["num"] == 8
    assert lines[0]["Loss/KD/grad_ratio"]["num"] == 1  # once a tick
    assert lines[0]["Loss/KD/grad_ratio"]["mean"] > 0
    assert lines[0]["KD/explained"]["mean"] < 1
    assert 0 < lines[0]["Timing/kd_fraction"]["mean"] < 1
    assert np.asarray(Image.open(run_dir / "reals.png")).std() > 10
    before, after = (np.asarray(Image.open(run_dir / name)) for name in ("fakes_init.png", "fakes000000.016.png"))
    assert before.shape == after.shape
    assert (before != after).any()


def test_the_grid_of_reals_shows_the_training_images(run_train: RunTrain, tmp_path: Path, drawings: Path) -> None:
    from training.data.dataset import ImageDataset

    assert run_train().exit_code == 0
    grid = np.asarray(Image.open(only_run(tmp_path) / "reals.png"))
    first = ImageDataset(drawings)[0][0]
    np.testing.assert_array_equal(grid[:32, :32], np.asarray(first).transpose(1, 2, 0))


def test_weight_zero_is_the_baseline_to_the_bit(run_train: RunTrain, tmp_path: Path) -> None:
    zeros = ("--kd=demo", "--kd-agkd=0", "--kd-cgkd=0", "--kd-match=0", "--kd-critic=0")
    assert run_train(f"--outdir={tmp_path / 'plain'}").exit_code == 0
    assert run_train(f"--outdir={tmp_path / 'zero'}", *zeros).exit_code == 0
    assert run_train(f"--outdir={tmp_path / 'one'}", "--kd=demo").exit_code == 0
    plain, zero, one = (weights_of(next((tmp_path / name).iterdir())) for name in ("plain", "zero", "one"))
    assert_equal_weights(plain, zero)
    assert not torch.equal(plain["D.b4.fc.weight"], one["D.b4.fc.weight"])


def test_the_same_command_gives_the_same_networks(run_train: RunTrain, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run_train(f"--outdir={tmp_path / name}", "--kd=demo").exit_code == 0
    assert_equal_weights(*(weights_of(next((tmp_path / name).iterdir())) for name in ("a", "b")))


def test_a_prompt_that_is_too_long_is_found_before_anything_is_written(run_train: RunTrain, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n\n" + "a very fluffy cat and " * 9 + "a dog\n")
    result = run_train("--kd=demo", f"--kd-prompts={prompts}")
    assert result.exit_code == 2
    assert "--kd-prompts: 'a very fluffy cat and" in result.output
    assert "has 49 tokens, start and end marks included; teacher 'demo' takes 16 at most" in result.output
    assert f"(line 3 of '{prompts}')" in result.output
    assert not (tmp_path / "runs").exists()


def test_what_is_not_used_as_given_is_said(run_train: RunTrain, drawings: Path) -> None:
    result = run_train("--batch=6", "--mbstd-group=4", "--kimg=0.006")
    assert result.exit_code == 0, result.output
    assert "minibatch-std in groups of 3: 4 (--mbstd-group) does not divide the 6 images" in result.output
    assert "Labels:      8 classes in dataset.json, not used (--cond=1 uses them)" in result.output
    assert "24 images are very few: expect copies" in result.output
    assert "Labels:      8 classes in dataset.json (cat, owl, " in run_train("--cond", "--kimg=0.004").output


@pytest.mark.parametrize(
    "flags",
    [
        ("--kd=demo", "--kd-head=linear", "--diffaugment=color,translation,cutout"),
        ("--kd=demo", "--aug=ada", "--p=0.3", "--ada-kimg=0.1", "--cond"),
        ("--aug=fixed", "--p=0.5", "--lecam=0.3", "--freezed=1", "--mirror", "--precision=bf16", "--num-fp16-res=2"),
        ("--kd=demo", "--kd-head=mlp", "--kd-critic=0.5", "--kd-distance=l2", "--kd-cgkd-distance=sse"),
        ("--kd=demo", "--kd-head=orthogonal", "--kd-distance=mse", "--kd-balance=0.5"),
        (
            "--kd=demo",
            "--kd-norm=whiten",
            "--kd-centre",
            "--kd-view=clean",
            "--kd-warmup=0.1",
            "--kd-until=0.1",
            "--kd-diversity=1",
            "--kd-match=0.5",
            "--kd-match-on=stages",
            "--kd-match-pull=0.5",
            "--kd-every=3",
        ),
        (
            "--kd=demo+0.5*demo",
            "--kd-norm=standardise",
            "--batch-gpu=2",
            "--kd-layer=b8.conv1,b4.fc",
            "--kd-match-on=block2",
        ),
    ],
    ids=["diffaugment", "ada and labels", "all the rest", "mlp head", "orthogonal head", "whiten", "two teachers"],
)
def test_resuming_repeats_the_whole_run_to_the_bit(
    flags: tuple[str, ...], run_train: RunTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps at once, and the last 10 again from the state after the first 10, as if the run had been killed there.

    Path length, R1, the coin, ADA's p and the averages are all in the state.
    """
    long = (
        "--resolution=16",
        "--kimg=0.08",
        "--tick=0.04",
        "--pl-weight=2",
        "--style-mixing=0.9",
        "--kd=none",
        "--kd-p=0.5",
        *flags,
    )
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    keep_the_first_save(whole, resumed, monkeypatch)
    assert run_train(f"--outdir={whole}", *long).exit_code == 0
    result = run_train(f"--outdir={resumed}", *long, "--resume=latest")
    assert result.exit_code == 0, result.output
    assert "Resume:      at 0.0 kimg" in result.output
    whole, resumed = (next(folder.iterdir()) for folder in (whole, resumed))
    assert_equal_weights(weights_of(whole), weights_of(resumed))
    assert [line["Progress/kimg"]["mean"] for line in stats_of(resumed)] == [0.04, 0.08]
    a, b = load_state(whole), load_state(resumed)
    assert_equal_tree(a["parts"], b["parts"])
    assert {"progress", "G", "D", "G_ema", "optimizer.Gmain", "optimizer.Dmain", "path_length"} < a["parts"].keys()
    for part, prefix in (("kd", "--kd="), ("lecam", "--lecam="), ("ada", "--aug=")):
        assert (part in a["parts"]) == any(flag.startswith(prefix) for flag in flags)


def keep_the_first_save(outdir: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop.save

    def and_copy(session: Session, run_dir: Path) -> list[str]:
        warnings = save(session, run_dir)
        if not copy.exists():
            shutil.copytree(outdir, copy)
        return warnings

    monkeypatch.setattr(loop, "save", and_copy)


def assert_equal_tree(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_tree(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal_tree(x, y)
    else:
        assert a == b


def test_latest_is_the_newest_run_with_the_same_options(run_train: RunTrain, tmp_path: Path) -> None:
    for flags in (("--kd=demo",), ("--kd=demo", "--gamma=7"), ("--desc=mine",)):
        assert run_train(*flags).exit_code == 0
    result = run_train("--kd=demo", "--resume=latest", "--kimg=0.02", "--tick=0.004")
    assert result.exit_code == 0, result.output
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name[:5] for folder in folders] == ["00000", "00001", "00002"]
    assert f"Run folder:  {folders[0]}" in result.output
    assert [load_state(folder)["parts"]["progress"]["nimg"] for folder in folders] == [20, 16, 16]

    other = run_train("--kd=demo", "--gamma=8", "--resume=latest")
    assert other.exit_code == 2
    assert "no run in" in other.output
    assert f"'{folders[1]}' was started with different ones: --gamma (7.0 was saved, 8.0 was given)" in other.output
    assert run_train("--cfg=low_shot", "--resume=latest").exit_code == 0  # another name: a run of its own
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_a_broken_folder_does_not_keep_others_from_going_on(run_train: RunTrain, tmp_path: Path) -> None:
    for _ in range(2):
        assert run_train().exit_code == 0
    older, newer = sorted((tmp_path / "runs").iterdir())
    (newer / "config.json").write_text("{")
    result = run_train("--resume=latest", "--kimg=0.02")
    assert result.exit_code == 0, result.output
    assert f"Run folder:  {older}" in result.output


def test_the_prompts_that_were_used_are_kept(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train("--kd=demo").exit_code == 0
    path = only_run(tmp_path) / "config.json"
    prompts = json.loads(path.read_text())["kd_prompts_used"]
    assert len(prompts) == 8
    assert "a photo of a cat" in prompts
    assert run_train(f"--config={path}", "--dry-run").exit_code == 0


def test_a_warm_start_takes_the_weights(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train().exit_code == 0
    snapshot = only_run(tmp_path) / "network-snapshot-000000.016.safetensors"
    result = run_train(f"--resume={snapshot}", "--kimg=0.004", "--lr=1e-12", f"--outdir={tmp_path / 'warm'}")
    assert result.exit_code == 0, result.output
    source, warm = weights_of(only_run(tmp_path)), weights_of(next((tmp_path / "warm").iterdir()))
    torch.testing.assert_close(warm["D.b4.fc.weight"], source["D.b4.fc.weight"], atol=1e-6, rtol=0)


def test_config_json_runs_the_same_again(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train("--kd=demo", "--kd-p=0.25", "--gamma=3").exit_code == 0
    config = only_run(tmp_path) / "config.json"
    again = run_train(f"--config={config}", "--dry-run")
    assert again.exit_code == 0, again.output
    assert again.stdout == config.read_text() + "\n"


def test_a_warm_start_says_what_it_takes(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train("--aug=ada", "--p=0.4").exit_code == 0
    snapshot = only_run(tmp_path) / "network-snapshot-000000.016.safetensors"
    flags = (f"--resume={snapshot}", "--kimg=0.004", f"--outdir={tmp_path / 'warm'}")
    result = run_train(*flags, "--cond=1", "--cmax=32", "--aug=ada")
    assert result.exit_code == 0, result.output
    for words in (
        "Warm start:  D:",
        "new here: mapping",
        "other shape:",
        "the snapshot has --cmax=64, this run 32; to take over all, give --cmax=64",
        "the snapshot has --cond (width of the labels)=0, this run 8",
        "that run's augmentation stood at p = 0.4",
    ):
        assert words in result.output, result.output
    assert load_state(next((tmp_path / "warm").iterdir()))["parts"]["progress"]["warm"] is True


@pytest.mark.parametrize(("given", "cold", "warm"), [({}, 500.0, 100.0), ({"ada_kimg": 500.0}, 500.0, 500.0)])
def test_a_warm_start_adjusts_ada_faster_unless_told_otherwise(
    given: dict[str, float], cold: float, warm: float, drawings: Path, tmp_path: Path
) -> None:
    options = {"data": str(drawings), "cfg": "demo", "cbase": 64, "cmax": 16, "batch": 4, "device": "cpu", "aug": "ada"}
    session = Session.build(resolve({**options, **given}, {}, 32), ImageDataset(drawings))
    ada = session.augmentation.ada
    assert ada is not None
    assert ada.kimg == cold
    save_snapshot(tmp_path / "s.safetensors", session.networks(), {})
    session.start_from(load_snapshot(tmp_path / "s.safetensors", roles=("G", "D", "G_ema")))
    assert ada.kimg == warm


def test_a_warm_start_from_nothing_that_fits(run_train: RunTrain, tmp_path: Path) -> None:
    assert run_train().exit_code == 0
    snapshot = only_run(tmp_path) / "network-snapshot-000000.016.safetensors"
    result = run_train(f"--resume={snapshot}", "--cbase=64", "--w-dim=16", "--z-dim=3", f"--outdir={tmp_path / 'warm'}")
    assert result.exit_code == 2, result.output
    assert "hardly anything of the snapshot's G (" in result.output
    assert "fits the new network; the snapshot has --cbase=256, this run 64; to take over all, give" in result.output
    assert not (tmp_path / "warm").exists()


def test_snap_keep_deletes_older_snapshots(run_train: RunTrain, tmp_path: Path) -> None:
    small = ("--resolution=8", "--gamma=0", "--batch=240", "--batch-gpu=240")
    result = run_train(*small, "--kimg=4.2", "--tick=1", "--snap-keep=2")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in only_run(tmp_path).glob("network-snapshot-*"))
    assert names == ["network-snapshot-000003.safetensors", "network-snapshot-000004.safetensors"]


def test_gradients_that_are_not_finite_stop_the_run(
    run_train: RunTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    lossy = phases.generator_loss

    def spoilt(*given: Any) -> torch.Tensor:
        calls.append(1)
        return lossy(*given) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setattr(phases, "generator_loss", spoilt)
    result = run_train("--kimg=1", "--max-nan-steps=4")
    assert result.exit_code == 1, result.output
    assert "--max-nan-steps=4: at 0.028 kimg the gradients had not been finite" in result.output
    assert len(calls) == 7
    run_dir = only_run(tmp_path)
    assert [line.get("Progress/nan_steps", {}).get("mean") for line in stats_of(run_dir)] == [None, 1.0, 2.0]
    assert all(value.isfinite().all() for value in weights_of(run_dir).values())
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == 24


def test_a_weight_that_is_not_finite_is_never_written(
    run_train: RunTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = phases.Gmain.step

    def spoilt(self: phases.Gmain, batches: Any) -> None:
        step(self, batches)
        self.parameters[0].view(-1)[0] = float("inf")

    monkeypatch.setattr(phases.Gmain, "step", spoilt)
    result = run_train()
    assert result.exit_code == 1, result.output
    assert "is not finite at 0.008 kimg; nothing was written" in result.output
    assert list(only_run(tmp_path).glob("network-snapshot-*")) == []
    assert list(only_run(tmp_path).glob("training-state*")) == []


def test_dry_run_writes_nothing(run_train: RunTrain, tmp_path: Path) -> None:
    result = run_train("--dry-run")
    assert result.exit_code == 0
    assert json.loads(result.output)["cfg"] == "demo"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data=/nowhere/cats.zip",), "cats.zip"),
        (("--kd=dmo",), "nearest: 'demo'"),
        (("--kdd=demo",), "--kd"),
        (("--kd=demo", "--kd-layer=b4.fcc"), "nearest: 'b4.fc'"),
        (("--kd=demo", "--kd-prompts=/nowhere.txt"), "--kd-prompts"),
        (("--kd=clip:/nowhere/ViT-B-32.pt",), "/nowhere/ViT-B-32.pt"),
        (("--aug=adda",), "ada"),
        (("--diffaugment=colour",), "nearest: 'color'"),
        (("--resume=/nowhere.safetensors",), "--resume"),
        (("--device=cudda",), "--device"),
        (("--metrics=fid50k_ful",), "nearest: 'fid50k_full'"),
        (("--metrics=kid8_full", "--detector=/nowhere.pt"), "To train without metrics give --metrics=none"),
        (("--metrics=kid8_full", "--detector=demo", "--best=fid8_full"), "--best: 'fid8_full' is not among"),
        (("--holdout=24",), "--holdout: expected 0 to 23"),
        (("--precision=fp16",), "--precision=fp16 is for CUDA; the device is cpu: give auto, fp32 or bf16"),
        (("--freezed=99",), "--freezed: 99 was given, but the discriminator's blocks have 10 layers"),
        (("--lecam=-1",), "--lecam: -1.0 was given, it must be at least 0"),
        (("--batch=8", "--gpus=2", "--batch-gpu=3"), "--batch-gpu: 3 was given, it must be a divisor of the 4 images"),
        (("--max-nan-steps=0",), "--max-nan-steps: 0 was given"),
        (("--augpipe=bg",), "--augpipe has no effect in this run; give --aug=ada or --aug=fixed"),
        (("--target=0.5",), "--target has no effect in this run; give --aug=ada, or leave --target out"),
        (("--pl-every=8",), "--pl-every has no effect in this run; give --pl-weight above 0"),
        (("--best=kid8_full",), "--best has no effect in this run; give --metrics, or leave --best out"),
        (
            ("--kd=demo", "--kd-diversity-on=student"),
            "--kd-diversity-on has no effect in this run; give --kd-diversity above 0",
        ),
        (
            ("--kd=demo", "--kd-variant=paper", "--kd-critic-lr=0.1"),
            "--kd-critic-lr has no effect in this run; give --kd-critic above 0",
        ),
        (("--kd=demo", "--kd-variant=paper", "--kd-match-on=stages"), "--kd-match-on has no effect in this run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_exit_with_2_and_leave_nothing(
    flags: tuple[str, ...], message: str, run_train: RunTrain, tmp_path: Path
) -> None:
    result = run_train(*flags)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--aug=noaug", "--augpipe=bg", "--target=0.5"),
        ("--metrics=none", "--best=kid8_full", "--detector=demo"),
        ("--kd=none", "--kd-match-on=stages"),
        ("--kd=demo", "--kd-match=0", "--kd-match-on=stages"),
        ("--aug=ada", "--diffaugment=none", "--target=0.5", "--p=0.1"),
    ],
)
def test_a_script_may_switch_off_what_its_other_options_are_of(flags: tuple[str, ...], run_train: RunTrain) -> None:
    result = run_train("--dry-run", *flags)
    assert result.exit_code == 0, result.output


def test_an_outdir_that_is_a_file(run_train: RunTrain, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run_train(f"--outdir={tmp_path / 'file'}")
    assert result.exit_code == 2
    assert "--outdir" in result.output
