"""Where a run's values come from, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dnnlib.errors import UserError
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import to_dict
from kd_plugin.errors import KDError
from kd_plugin.terms import AGKD
from training.config import TrainConfig
from training.presets import preset_row, resolve
from training.resume import differing_fields

PRESET_NAMES = ["low_shot", "auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "biggan_cifar", "demo"]


def test_flags_go_over_the_preset() -> None:
    config = resolve({"data": "cats.zip", "gamma": 3.0}, {"teacher": "demo", "agkd": 0.5}, resolution=256)
    assert (config.cfg, config.gamma, config.kimg, config.kd.terms["agkd"].weight) == ("low_shot", 3.0, 300, 0.5)


def test_the_demo_data_brings_the_demo_preset() -> None:
    assert resolve({"data": "demo"}, {}, resolution=32).cfg == "demo"
    assert resolve({"data": "demo", "cfg": "low_shot"}, {}, resolution=32).cfg == "low_shot"


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_is_complete(name: str) -> None:
    config = resolve({"data": "x.zip", "cfg": name}, {}, resolution=256)
    assert config.cfg == name
    missing = {f.name for f in dataclasses.fields(TrainConfig) if f.default is dataclasses.MISSING} - {"kd"}
    row = preset_row(name, 256)
    assert missing <= row.keys()
    rest = {key: row[key] for key in row.keys() - missing}
    assert rest.keys() == {"model", "beta2", "loss", "d_steps", "ema_start", "cond", "mirror"}
    if name != "biggan_cifar":
        assert rest == {key: TrainConfig.__dataclass_fields__[key].default for key in rest}


def test_biggan_cifar_is_the_published_one() -> None:
    """DiffAugment-biggan-cifar: 0.9999 a step of G from step 1000 on, four steps of D of 50 images each."""
    row = preset_row("biggan_cifar", 32)
    assert (row["batch"], row["d_steps"], row["lr"], row["beta2"], row["loss"]) == (50, 4, 0.0002, 0.999, "hinge")
    images_a_step_of_g = row["batch"] * row["d_steps"]
    assert row["ema_start"] * 1000 == 1000 * images_a_step_of_g
    assert 0.5 ** (images_a_step_of_g / (row["ema_kimg"] * 1000)) == pytest.approx(0.9999, rel=1e-7)
    assert (row["diffaugment"], row["mirror"], row["z_dim"], row["gamma"]) == ("translation,cutout", True, 128, 0)


def test_another_preset_leaves_the_distillation() -> None:
    saved = to_dict(resolve({"data": "x.zip"}, {"teacher": "clip", "view": "clean"}, 32))
    again = resolve({"cfg": "demo"}, {}, 32, saved)
    assert again.kd == KDConfig(teacher="clip", view="clean")


def test_auto_follows_the_published_heuristics() -> None:
    row = preset_row("auto", 256)
    assert (row["batch"], row["mbstd_group"], row["cbase"], row["lr"], row["ema_kimg"]) == (16, 4, 16384, 0.0025, 5)
    assert row["gamma"] == pytest.approx(0.8192)
    assert preset_row("auto", 1024)["lr"] == 0.002
    assert preset_row("auto", 1024)["batch"] == 4
    assert preset_row("auto", 512)["cbase"] == 32768


def test_low_shot_is_diffaugments() -> None:
    row = preset_row("low_shot", 256)
    expected = {"kimg": 300, "batch": 8, "mbstd_group": 4, "lr": 0.002, "gamma": 10, "pl_weight": 2, "map_depth": 2}
    assert {name: row[name] for name in expected} == expected
    assert row["diffaugment"] == "color,translation,cutout"


def test_a_saved_config_runs_again() -> None:
    config = resolve({"data": "cats.zip", "cfg": "auto", "gamma": 1.5}, {"teacher": "demo", "p": 0.3}, resolution=128)
    saved = json.loads(json.dumps(to_dict(config)))
    assert resolve({}, {}, resolution=128, saved=saved) == config
    again = resolve({"kimg": 7.0}, {"p": 0.4}, resolution=128, saved=saved)
    assert (again.kimg, again.kd.p, again.gamma) == (7.0, 0.4, 1.5)


def test_naming_one_augmentation_replaces_the_presets_other_one() -> None:
    assert resolve({"cfg": "auto", "diffaugment": "color"}, {}, 64).aug == "noaug"
    assert resolve({"cfg": "low_shot", "aug": "ada"}, {}, 64).diffaugment == "none"
    with pytest.raises(UserError, match=r"--aug=ada and --diffaugment=color both augment"):
        resolve({"aug": "ada", "diffaugment": "color"}, {}, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cfg": "low_shto"}, r"--cfg: unknown preset 'low_shto'; nearest: 'low_shot'"),
        ({"batch": 0}, r"--batch: 0 was given, it must be from 1 to 1048576"),
        ({"gamma": -1.0}, r"--gamma: -1.0 was given, it must be at least 0"),
        ({"batch": 8, "batch_gpu": 3}, r"--batch-gpu: 3 was given, it must be a divisor of --batch=8"),
        ({"style_mixing": 1.5}, r"--style-mixing: 1.5 was given, it must be from 0 to 1"),
    ],
)
def test_messages(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve({"data": "x.zip", **given}, {}, 64)


def test_distillation_options_are_checked_too() -> None:
    with pytest.raises(KDError, match=r"p=1.2 is not a probability"):
        resolve({}, {"p": 1.2}, 64)
    with pytest.raises(KDError, match=r"agkd=-1.0 is not a weight"):
        resolve({}, {"agkd": -1.0}, 64)


def test_options_of_a_distillation_that_has_no_teacher() -> None:
    with pytest.raises(
        UserError, match=r"--kd-balance: no teacher was given, so nothing .*; give --kd, such as --kd=clip"
    ):
        resolve({}, {"balance": 0.5}, 64)
    with pytest.raises(UserError, match=r"--kd-variant: no teacher was given"):
        resolve({}, {}, 64, variant="paper")
    assert resolve({}, {"teacher": "none", "balance": 0.5}, 64).kd.balance == 0.5
    saved = to_dict(resolve({"data": "x.zip"}, {"teacher": "demo"}, 64))
    assert resolve({}, {"balance": 0.5}, 64, saved).kd.teacher == "demo"


def test_unknown_names_in_a_saved_config() -> None:
    saved = to_dict(resolve({"data": "x.zip"}, {}, 64)) | {"gama": 3}
    with pytest.raises(KDError, match=r"unknown option 'gama'; nearest: 'gamma'"):
        resolve({}, {}, 64, saved=saved)


def test_what_makes_another_run() -> None:
    config = resolve({"data": "x.zip"}, {"teacher": "demo"}, 64)
    saved = json.loads(json.dumps(to_dict(config)))
    longer = dataclasses.replace(config, kimg=900.0, workers=0)
    assert differing_fields(saved, longer) == []
    del saved["lecam"], saved["kd"]["centre"]  # as a version wrote it that did not have these options yet
    assert differing_fields(saved, longer) == []
    assert differing_fields(saved, dataclasses.replace(config, lecam=0.3)) == ["--lecam (0.0 was saved, 0.3 was given)"]
    saved["ada_kimg"] = 500.0  # as version 0.1 wrote it
    assert differing_fields(saved, longer) == []
    assert differing_fields(saved, dataclasses.replace(config, ada_kimg=100.0)) == [
        "--ada-kimg (500.0 was saved, 100.0 was given)"
    ]
    other = dataclasses.replace(config, gamma=5.0, kd=dataclasses.replace(config.kd, p=0.1))
    assert differing_fields(saved, other) == [
        "--gamma (10.0 was saved, 5.0 was given)",
        "--kd-p (0.0 was saved, 0.1 was given)",
    ]


def test_a_variant_goes_over_the_preset_and_flags_over_it() -> None:
    release = resolve({"data": "demo"}, {"teacher": "demo", "p": 0.5}, 32, variant="release").kd
    assert (release.terms["agkd"], release.p, release.head) == (AGKD.Options(10.0, "l2"), 0.5, "mlp")
    saved = to_dict(resolve({"data": "x.zip"}, {"teacher": "clip", "norm": "unit"}, 32))
    assert resolve({}, {}, 32, saved, variant="orthogonal").kd.norm == "whiten"
    with pytest.raises(KDError, match=r"variant='relase' is unknown; nearest: 'release'"):
        resolve({"data": "demo"}, {}, 32, variant="relase")
