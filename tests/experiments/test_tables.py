"""The tables of experiments/: every command can be run, every published figure has its source; and wrong tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dnnlib.errors import UserError
from experiments.plan import plan_lines
from experiments.runs import Place, Run, chosen_cells, runs_of
from experiments.scale import SCALES, scaled
from experiments.table import load_table, table_names
from training.config import TrainConfig
from training.presets import resolve

SMALL = """
title = "t"
about = "a"
protocol = "p"
metric = "kid1k_full"
[[axis]]
name = "method"
choice = [{ name = "plain" }, { name = "LeCam", flags = { lecam = 0.3 } }]
[[axis]]
name = "data"
choice = [{ name = "cats", flags = { data = "cats.zip" } }]
"""


def runs(name: str, scale: str, folder: Path) -> list[Run]:
    table = scaled(load_table(name), scale)
    return runs_of(table, Place(folder, None, table.teacher, table.detector), table.seeds)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", table_names())
def test_every_run_of_every_table_can_be_configured(name: str, scale: str, tmp_path: Path) -> None:
    table = scaled(load_table(name), scale)
    folders = set()
    for run in runs(name, scale, tmp_path):
        given = {key: value for key, value in run.flags.items() if key in TrainConfig.__dataclass_fields__}
        kd = {key.removeprefix("kd_"): value for key, value in run.flags.items() if key.startswith("kd_")}
        kd.pop("variant", None)
        teacher = {"teacher": run.flags["kd"]}
        variant = run.flags.get("kd_variant")
        config = resolve(given, kd | teacher, table.resolution, variant=variant)
        assert table.metric in config.metrics.split(",")
        assert "{" not in " ".join(run.command).replace("--kd-template={}", "")
        folders.add(run.folder)
    assert len(folders) == len(table.cells()) * table.seeds  # no two runs share a folder


def test_published_figures_are_those_of_the_sources() -> None:
    low_shot, cifar = load_table("low_shot"), load_table("cifar")
    ((figure, source),) = low_shot.published_at(("StyleGAN2", "none", "AnimalFace Dog"))
    assert (figure, source.protocol) == (130.19, "")
    ((figure, source),) = low_shot.published_at(("DiffAugment", "paper", "Obama"))
    assert figure == 31.54
    assert source.protocol == "not stated"  # so no difference is computed
    ((figure, _),) = cifar.published_at(("DA", "none", "C100 10%"))
    assert figure == 33.70
    assert low_shot.published_at(("DiffAugment", "default", "Obama")) == []


def test_a_plan_says_what_it_takes(tmp_path: Path) -> None:
    lines = list(plan_lines(load_table("low_shot"), runs("low_shot", "full", tmp_path)))
    assert lines[0] == "# StyleGAN2 / none / Obama, seed 0: new"
    expected = (
        "python train.py --cfg=low_shot --mirror=true --metrics=fid5k_full,kid5k_full,mem5k --snap-keep=1 "
        "--detector=inception --diffaugment=none --kd=none --data=100-shot-obama --seed=0 --outdir="
    )
    assert lines[1].startswith(expected)
    kimg = 4 * 3 * 3 * (3 * 300 + 2 * 500)
    rate = "6 sec/kimg (one H200, measured with --cfg=auto"
    hours = f"{kimg * 6 / 3600:.3g} hours one after the other"
    assert f"# time: {kimg:,} kimg are left, {hours} at {rate}" in "\n".join(lines)
    assert any(line.startswith("# downloads, once: CLIP ViT-B/32 0.34 GB") for line in lines)
    cifar = list(plan_lines(load_table("cifar"), runs("cifar", "full", tmp_path)))
    missing = "# cifar10-10pct.zip is not there; make it: python dataset_tool.py convert --source=cifar-10-python"
    assert any(line.startswith(missing) for line in cifar)


def test_the_estimate_of_disk_space(tmp_path: Path) -> None:
    """BigGAN's parameters are known: snapshots of 2 G + D and one state, four bytes each; estimated without labels."""
    found = (run for run in runs("cifar", "full", tmp_path) if run.cell.names == ("BigGAN", "none", "C10 10%"))
    two = next(found)  # the newest and the best snapshot
    every = replace(two, flags={key: value for key, value in two.flags.items() if key != "snap_keep"})
    table = load_table("cifar")
    (line,) = (line for line in plan_lines(table, [two]) if line.startswith("# disk"))
    assert line == "# disk: about 0.2 GB of snapshots and states"
    (line,) = (line for line in plan_lines(table, [every]) if line.startswith("# disk"))
    g, d = 4_304_387 - 10 * 4 * 6 * 128, 4_207_361 - 10 * 256
    snapshots = math.ceil(25000 / (20 * 40))
    assert float(line.split()[3]) == pytest.approx(4 * (snapshots * (2 * g + d) + 4 * g + 3 * d) / 1e9, rel=0.05)


def test_only_some_cells() -> None:
    table = load_table("low_shot")
    names = [cell.names for cell in chosen_cells(table, ["ADA", "LeCam", "Obama"])]
    assert {row[0] for row in names} == {"ADA", "LeCam"}
    assert {row[2] for row in names} == {"Obama"}
    assert len(names) == 2 * 3
    with pytest.raises(UserError, match=r"^--only: 'Obamo' is no row or column of low_shot; nearest: 'Obama'"):
        chosen_cells(table, ["Obamo"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "title ="), ""),
        (('metric = "kid1k_full"', "metric = kid"), r"cannot be read as TOML: Invalid value \(at line 5, column 10\)"),
        (('about = "a"\n', ""), "the table .*lacks 'about'"),
        (('about = "a"', 'abuot = "a"'), "'abuot' in the table is unknown; nearest: 'about'"),
        (("lecam = 0.3", "lecan = 0.3"), "flag 'lecan' of 'LeCam' is unknown; nearest: 'lecam'"),
        (('name = "plain"', 'name = "LeCam"'), "axis 'method' has 'LeCam' twice"),
        (('{ name = "plain" }', '{ nam = "plain" }'), "'nam' in axis.choice is unknown; nearest: 'name'"),
    ],
)
def test_a_table_that_cannot_be_used(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(SMALL.replace(*change))
    if not message:
        assert len(load_table(str(path)).cells()) == 2
        return
    with pytest.raises(UserError, match=f"^TABLE: '.*t.toml'.* ?{message}"):
        load_table(str(path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[[published]]\nrow = ["LeCan"]\nsource = "s"\nvalues = { cats = 1.0 }', "published row 'LeCan' is none"),
        ('[[published]]\nrow = ["LeCam"]\nsource = "s"\nvalues = { cat = 1.0 }', "'LeCam' has a figure for 'cat'"),
        ('[[published]]\nrow = ["LeCam"]\nsource = "s"\nvalues = { cats = nan }', "has nan for 'cats', which is no"),
        ('[[elsewhere]]\nname = "X"\nvalues = { cats = 1 }', "elsewhere .*lacks 'source'"),
    ],
)
def test_published_figures_that_fit_nowhere(more: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(SMALL + more)
    with pytest.raises(UserError, match=message):
        load_table(str(path))


def test_an_unknown_table() -> None:
    with pytest.raises(UserError, match=r"^TABLE: 'low-shot' is unknown; nearest: 'low_shot'"):
        load_table("low-shot")
