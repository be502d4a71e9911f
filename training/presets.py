"""The presets of published code, and the resolution of a run's options.

A value is taken from, in this order: the flag; the file of --config; the preset's column; the field's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnnlib.errors import UserError
from kd_plugin.config.kd import KDConfig, missing_teacher, variant_values
from kd_plugin.config.schema import from_dict
from kd_plugin.diffaugment import ALL
from kd_plugin.errors import nearest
from training.config import DEMO_HOLDOUT, TrainConfig, require_model
from training.data.image_sets import ImageOptions
from training.drawings import DemoSpec

__all__ = ["image_options", "preset_row", "resolve"]

# Sources: stylegan2-ada-pytorch (auto, stylegan2, paper*, cifar), DiffAugment-stylegan2-pytorch (low_shot);
# BigGAN-PyTorch and DiffAugment-biggan-cifar (biggan_cifar: 0.9999 a step of G, which is 1386.2 kimg, from step 1000);
# `demo` is ours: chosen by looking at the pictures that five minutes on two CPU cores give (studies/notebook.md).
_THREE, _TWO, _ONE = ALL, "translation,cutout", "translation"

# fmt: off
_PRESETS =          ("low_shot", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "biggan_cifar",   "demo")
_TABLE: dict[str, tuple[Any, ...]] = {
    "kimg":         (       300,       25000,      25000,      25000,       25000,  100000,          25000,       70),
    "tick":         (         4,           4,          4,          4,           4,       4,             20,        2),
    "snap":         (         5,          50,         50,         50,          50,      50,             40,        5),
    "batch":        (         8,          32,         64,         64,          32,      64,             50,       16),
    "mbstd_group":  (         4,           4,          8,          8,           4,      32,              1,       16),
    "cbase":        (     32768,       32768,      16384,      32768,       32768,   32768,           8192,      512),
    "cmax":         (       512,         512,        512,        512,         512,     512,            256,       64),
    "map_depth":    (         2,           8,          8,          8,           8,       2,              1,        2),
    "z_dim":        (       512,         512,        512,        512,         512,     512,            128,        4),
    "w_dim":        (       512,         512,        512,        512,         512,     512,            128,       64),
    "noise":        (      True,        True,       True,       True,        True,    True,          False,    False),
    "arch":         (  "resnet",    "resnet",   "resnet",   "resnet",    "resnet",  "orig",       "resnet", "resnet"),
    "lr":           (      .002,        .002,      .0025,      .0025,        .002,   .0025,          .0002,     .008),
    "gamma":        (        10,          10,          1,         .5,           2,     .01,              0,      .02),
    "pl_weight":    (         2,           2,          2,          2,           2,       0,              0,        0),
    "style_mixing": (        .9,          .9,         .9,         .9,          .9,       0,              0,        0),
    "ema_kimg":     (        10,          10,         20,         20,          10,     500,         1386.2,        1),
    "ema_rampup":   (      None,        None,       None,       None,        None,     .05,           None,       .1),
    "aug":          (   "noaug",       "ada",      "ada",      "ada",       "ada",   "ada",        "noaug",  "noaug"),
    "diffaugment":  (    _THREE,      "none",     "none",     "none",      "none",  "none",           _TWO,     _ONE),
}
# fmt: on
# What only some presets set; in the others these options have their own defaults.
_OF_SOME: dict[str, dict[str, Any]] = {
    "biggan_cifar": {
        "model": "biggan",
        "beta2": 0.999,
        "loss": "hinge",
        "d_steps": 4,
        "ema_start": 200,
        "cond": True,
        "mirror": True,
    },
}


def preset_row(name: str, resolution: int, gpus: int = 1) -> dict[str, Any]:
    """The values of a preset; `auto` depends on the rest.

    Raises:
        UserError: an unknown preset, with the nearest name.
    """
    if name == "auto":
        return _auto(resolution, gpus)
    if name not in _PRESETS:
        raise UserError(f"--cfg: unknown preset '{name}'{nearest(name, [*_PRESETS, 'auto'])}")
    column = _PRESETS.index(name)
    return _some_settings(name) | {setting: values[column] for setting, values in _TABLE.items()}


def _auto(resolution: int, ranks: int) -> dict[str, Any]:
    """Heuristics of stylegan2-ada-pytorch's `auto`."""
    batch = max(min(ranks * min(4096 // resolution, 32), 64), ranks)
    return preset_row("stylegan2", resolution) | {
        "batch": batch,
        "mbstd_group": min(batch // ranks, 4),
        "cbase": 32768 if resolution >= 512 else 16384,
        "map_depth": 2,
        "lr": 0.002 if resolution >= 1024 else 0.0025,
        "gamma": 0.0002 * resolution**2 / batch,
        "ema_kimg": batch * 10 / 32,
        "ema_rampup": 0.05,
    }


def image_options(given: Mapping[str, Any], saved: Mapping[str, Any] | None = None) -> ImageOptions:
    """Which images a run uses, known before they are opened. The arguments are those of `resolve`."""
    name = _preset_of(given, saved)
    of_preset = {} if name is None else _some_settings(name)
    return ImageOptions.of({"data": _default("data"), **(saved or {}), **of_preset, **given})


def _preset_of(given: Mapping[str, Any], saved: Mapping[str, Any] | None) -> str | None:
    """The preset whose values count; None: those of `saved` do."""
    before = saved or {}
    if saved is not None and given.get("cfg") in (None, saved.get("cfg")):
        return None
    data = given.get("data", before.get("data", _default("data")))
    return str(given.get("cfg") or ("demo" if DemoSpec.parse(data) else _default("cfg")))


def _some_settings(name: str) -> dict[str, Any]:
    """What only some presets set, in the preset of this name."""
    rest = {setting: _default(setting) for some in _OF_SOME.values() for setting in some}
    return rest | _OF_SOME.get(name, {})


def resolve(
    given: Mapping[str, Any],
    kd_given: Mapping[str, Any],
    resolution: int,
    saved: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> TrainConfig:
    """Resolve a run's configuration.

    Args:
        given: the fields of TrainConfig that the user named.
        kd_given: the fields of KDConfig that the user named.
        resolution: of the training images, in pixels.
        saved: the content of a config.json (--config); it stands where the preset's column would.
        variant: of the distillation, a name in kd_plugin.VARIANTS; its values override the preset's.

    Raises:
        UserError: options of the distillation without a teacher. An explicit `--kd=none` accepts them, so that
            a baseline is the same command with another teacher.
    """
    given = dict(given)
    base: dict[str, Any] = {**saved} if saved is not None else {}
    kd_saved = dict(base.pop("kd", {}))
    if (name := _preset_of(given, saved)) is not None:
        data = given.get("data", base.get("data", _default("data")))
        row = preset_row(name, resolution, given.get("gpus", base.get("gpus", _default("gpus"))))
        base |= {"cfg": name, "holdout": DEMO_HOLDOUT if DemoSpec.parse(data) else _default("holdout")} | row
    # Naming one of the two augmentations replaces a preset's other one.
    if given.get("diffaugment", "none") != "none":
        base["aug"] = "noaug"
    if given.get("aug", "noaug") != "noaug":
        base["diffaugment"] = "none"
    model = {**base, **given}.get("model", _default("model"))
    if saved is None or model != saved.get("model", _default("model")):  # else the saved run named its layer
        kd_saved["layer"] = require_model(model).discriminator.features
    kd = from_dict(KDConfig, {**kd_saved, **variant_values(variant), **kd_given}, what="distillation option")
    if problem := missing_teacher(kd, kd_given, variant):
        raise UserError(problem)
    return from_dict(TrainConfig, {**base, **given, "kd": kd}, what="option")


def _default(name: str) -> Any:
    return TrainConfig.__dataclass_fields__[name].default
