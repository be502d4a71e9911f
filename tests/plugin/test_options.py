"""One field = one flag = one default: the dataclass, its JSON and its command line agree."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import click
import pytest
from click.testing import CliRunner

from kd_plugin.config.click_flags import add_flags
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import from_dict, option, options_of, parts, to_dict
from kd_plugin.errors import KDError, arg, command_line, flag, nearest


@dataclass(frozen=True)
class Inner:
    size: int = option(3, "Size", metavar="PX")


@dataclass(frozen=True)
class Outer:
    batch: int = option(16, "Batch size", metavar="N")
    mirror: bool = option(False, "Mirror the images")
    rate: float | None = option(None, "Rate", shown_default="by resolution")
    kind: str = option("a", "Kind", choices=("a", "b"))
    shape: tuple[int, ...] = option((1, 2), "Shape", flag="")
    inner: Inner = field(default_factory=Inner, metadata={"flag": ""})


@click.command()
@add_flags(Outer, prefix="my_", flag=lambda key: f"--my-{key}")
def command(**given):
    click.echo(json.dumps(given))


def invoke(*arguments):
    return CliRunner().invoke(command, arguments)


def test_flags_come_from_the_fields():
    given = json.loads(invoke("--my-batch", "4", "--my-rate=0.5", "--my-kind", "b", "--my-mirror").output)
    assert given == {"my_batch": 4, "my_rate": 0.5, "my_kind": "b", "my_mirror": True}
    assert json.loads(invoke("--my-mirror=false").output)["my_mirror"] is False


def test_what_was_not_said_is_none():
    assert json.loads(invoke().output) == {"my_batch": None, "my_mirror": None, "my_rate": None, "my_kind": None}


def test_help_shows_metavar_and_default():
    text = " ".join(invoke("--help").output.split())
    assert "--my-batch N Batch size [default: 16]" in text
    assert "Rate [default: by resolution]" in text
    assert "--my-kind [a|b] Kind [default: a]" in text
    assert "shape" not in text
    assert "inner" not in text


def test_flag_names():
    flags = {item.key: item.flag_name(flag) for item in options_of(KDConfig)}
    assert flags["teacher"] == "--kd"
    assert flags["layer"] == "--kd-layer"
    assert flags["agkd"] == "--kd-agkd"
    assert flags["cgkd_distance"] == "--kd-cgkd-distance"
    assert options_of(Outer)[4].flag_name(flag) == ""


@dataclass(frozen=True)
class Part:
    weight: float = option(0.5, "Weight")
    size: int = option(3, "Size")
    kind: str = option("a", "Kind", key="sort")


@dataclass(frozen=True)
class Whole:
    name: str = option("x", "Name")
    parts: Mapping[str, Part] = parts(lambda: {"one": Part, "two": type("Part2", (Part,), {})})


def test_parts_stand_beside_the_other_options():
    with pytest.raises(KDError, match="two options are called 'sort'"):
        options_of(Whole)
    assert [item.key for item in options_of(Single)] == ["name", "one", "one_size", "sort"]
    made = from_dict(Single, {"one_size": 4, "sort": "b"})
    assert made == Single("x", {"one": Part(0.5, 4, "b")})
    assert to_dict(made) == {"name": "x", "one": 0.5, "one_size": 4, "sort": "b"}
    with pytest.raises(KDError, match="unknown option 'one_sise'; nearest: 'one_size'"):
        from_dict(Single, {"one_sise": 4})


@dataclass(frozen=True)
class Single:
    name: str = option("x", "Name")
    parts: Mapping[str, Part] = parts(lambda: {"one": Part})


def test_a_part_that_is_added_later_has_its_defaults():
    before = Single(parts={})
    assert to_dict(before) == {"name": "x"}
    assert from_dict(Single, to_dict(before)) == Single()


def test_options_are_named_as_they_were_written():
    assert (arg("view"), arg("view", "clean"), arg("p", 2.0)) == ("view=", "view='clean'", "p=2.0")
    with command_line():
        assert (arg("view"), arg("view", "clean"), arg("teacher", "clip")) == (
            "--kd-view",
            "--kd-view=clean",
            "--kd=clip",
        )
        with pytest.raises(KDError, match=r"^--kd-match-pull=-1\.0 is not a fraction"):
            from_dict(KDConfig, {"match_pull": -1.0})
    assert arg("view") == "view="


def test_json_and_back():
    made = Outer(batch=3, rate=0.5, shape=(5,), inner=Inner(size=9))
    assert from_dict(Outer, json.loads(json.dumps(to_dict(made)))) == made
    assert from_dict(Outer, {}) == Outer()


def test_whole_numbers_are_floats_where_floats_are_wanted():
    made = from_dict(KDConfig, {"agkd": 2})
    assert made.terms["agkd"].weight == 2
    assert isinstance(made.terms["agkd"].weight, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bach": 1}, "unknown option 'bach'; nearest: 'batch'"),
        ({"batch": "1"}, "option 'batch': '1' is not of type int"),
        ({"batch": True}, "option 'batch': True is not of type int"),
        ({"batch": None}, "option 'batch': None is not of type int"),
        ({"inner": {"sise": 1}}, "unknown option 'sise'"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(KDError, match=message):
        from_dict(Outer, values)


def test_optional_fields_take_none():
    assert from_dict(Outer, {"rate": None}).rate is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"agkd": -1.0}, "agkd=-1.0 is not a weight; give a number of at least 0"),
        ({"cgkd": math.nan}, "cgkd=nan is not a weight"),
        ({"diversity": math.inf}, "diversity=inf is not a weight"),
        ({"p": 2.0}, "p=2.0 is not a probability; give a number from 0 to 1"),
        ({"p": math.nan}, "p=nan is not a probability"),
        ({"head": "mpl"}, "head='mpl' is unknown; choose one of auto, identity, linear"),
        ({"view": "sen"}, "view='sen' is unknown; choose one of auto, seen, clean"),
    ],
)
def test_config_refuses(values, message):
    with pytest.raises(KDError, match=message):
        from_dict(KDConfig, values)


def test_config_is_off_by_default():
    assert not KDConfig().enabled
    assert KDConfig(teacher="clip").enabled
    assert KDConfig().weights == {"agkd": 1.0, "cgkd": 1.0, "critic": 1.0, "diversity": 0.0, "match": 1.0}


def test_nearest():
    assert nearest("b4.fcc", ["b4.fc", "mapping"]) == "; nearest: 'b4.fc'"
    assert nearest("xyz", ["b4.fc", "mapping"]) == "; known: 'b4.fc', 'mapping'"
    assert nearest("xyz", [f"layer {i}" for i in range(20)]) == ""
    assert nearest("xyz", []) == ""
