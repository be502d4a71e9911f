"""Every numeric flag of every program, with numbers that it cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import convert
import evaluate
import generate
import report
import train
from kd_plugin.config.click_flags import plain_flag
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.ranges import LARGEST, Range
from kd_plugin.config.schema import Option, options_of
from kd_plugin.errors import flag
from kd_plugin.probe.__main__ import Options as ProbeOptions
from kd_plugin.probe.__main__ import main as probe
from training.config import TrainConfig
from training.generation.images import ImagesOptions
from training.generation.interpolation import InterpolationOptions
from training.generation.mixing import MixingOptions
from training.generation.projection import ProjectionOptions
from training.generation.ui import UiOptions

# What each program cannot do without; never reached, as numbers are looked at first.
NEEDED = {
    "train": ["--data=none.zip", "--kd=demo"],
    "generate images": ["--network=none.safetensors", "--seeds=0"],
    "generate interpolate": ["--network=none.safetensors", "--seeds=0,1"],
    "generate style-mixing": ["--network=none.safetensors", "--rows=0", "--cols=1"],
    "generate project": ["--network=none.safetensors", "--target=none.png"],
    "generate ui": ["--network=none.safetensors"],
    "convert": ["none.pkl"],
    "evaluate": ["--network=none.safetensors", "--data=none.zip"],
    "report": ["none.d"],
    "probe": ["--data=none.zip"],
}
PROGRAMS: dict[str, Any] = {
    "train": train.main,
    **{f"generate {name}": command for name, command in generate.main.commands.items()},
    "evaluate": evaluate.main,
    "report": report.main,
    "convert": convert.main,
}
RECORDS = [
    ("train", TrainConfig, plain_flag),
    ("train", KDConfig, flag),
    ("generate images", ImagesOptions, plain_flag),
    ("generate interpolate", InterpolationOptions, plain_flag),
    ("generate style-mixing", MixingOptions, plain_flag),
    ("generate project", ProjectionOptions, plain_flag),
    ("generate ui", UiOptions, plain_flag),
    ("convert", convert.Options, plain_flag),
    ("evaluate", evaluate.Options, plain_flag),
    ("report", report.Options, plain_flag),
    ("probe", ProbeOptions, plain_flag),
]
INVALID = ("nan", "inf", "-inf", "-1", "0", "4294967297", "1e300", "", "many", "9" * 400)


def numeric() -> Iterator[tuple[str, str, Option]]:
    for program, record, spell in RECORDS:
        for item in options_of(record):
            if item.kind in (int, float) and (name := item.flag_name(spell)):
                yield program, name, item


NUMERIC = list(numeric())


def takes(item: Option, text: str) -> bool:
    try:
        value = item.kind(text)
    except ValueError:
        return False
    return not item.range.problem(value)


def call(program: str, arguments: list[str]) -> tuple[int, str]:
    command: click.Command = PROGRAMS[program]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exception  # no traceback
    return result.exit_code, result.output


REFUSED = [(program, name, value) for program, name, item in NUMERIC for value in INVALID if not takes(item, value)]


@pytest.mark.parametrize(("program", "name", "value"), REFUSED)
def test_a_number_that_a_flag_cannot_take(
    program: str, name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*NEEDED[program], f"{name}={value}"]
    if program == "probe":
        with pytest.raises(SystemExit) as end:
            probe(arguments)
        status, output = end.value.code, capsys.readouterr().err
    else:
        status, output = call(program, arguments)
    assert status == 2
    assert name in output
    assert "none." not in output  # what is said is about the number


def test_there_is_no_other_numeric_flag() -> None:
    """Each one has a range: a flag that is added outside the records would not be looked at above."""
    known = {(program, name) for program, name, _ in NUMERIC}
    for program, command in PROGRAMS.items():
        for parameter in command.params:
            numbers = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
            if numbers and (program, parameter.opts[0]) not in known:
                assert parameter.opts == ["--kd-probe"], parameter.opts


@pytest.mark.parametrize("text", ["-1", "4294967296", "0-4294967295", "", "1,,2", "nan", "²", "9" * 400])
def test_seeds(text: str) -> None:
    status, output = call("generate images", ["--network=none.safetensors", f"--seeds={text}"])
    assert status == 2
    assert "--seeds: " in output


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", ""])
def test_the_seconds_of_the_probe(value: str, tmp_path: Path) -> None:
    status, output = call("train", ["--data=none.zip", "--kd=demo", f"--kd-probe={value}", f"--outdir={tmp_path}"])
    assert status == 2
    assert "--kd-probe" in output


@pytest.mark.parametrize(
    ("which", "value", "problem"),
    [
        (Range(), float("nan"), "finite"),
        (Range(), 1e16, f"from {-LARGEST[float]:.16g} to {LARGEST[float]:.16g}"),
        (Range(0), -1, "at least 0"),
        (Range(0), 2**31, "from 0 to 2147483647"),
        (Range(0, above=True), 0, "above 0"),
        (Range(0, above=True), float("inf"), "above 0"),
        (Range(0, 1), 1.5, "from 0 to 1"),
        (Range(high=3), 4, "at most 3"),
        (Range(0, 1), 1.0, ""),
        (Range(0), 0, ""),
    ],
)
def test_ranges(which: Range, value: Any, problem: str) -> None:
    assert which.problem(value) == problem
