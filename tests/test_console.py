"""Texts that the console's code page lacks."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import evaluate
import generate
import report
import train
from kd_plugin.hosts.patch import main as patch
from kd_plugin.probe.__main__ import main as probe
from tests.forked import Forked
from training.drawings import DemoSpec, write_demo_set

SMALL = ["--cfg=demo", "--batch=4", "--cbase=64", "--cmax=16", "--kimg=0.004", "--tick=0.004", "--snap=1"]


def call(main: Callable[[list[str]], object], arguments: list[str], encoding: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding=encoding)
    main(arguments)


def run(main: Callable[[list[str]], object], arguments: list[str], encoding: str, out: Path) -> tuple[int, str]:
    process = Forked(call, main, arguments, encoding, out=out)
    return process.wait(), process.output


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_paths_and_prompts(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "данные"
    folder.mkdir()
    data = folder / "кот 猫.zip"
    write_demo_set(data, DemoSpec(count=8, series=5, size=16))
    (folder / "слова.txt").write_text("a photo of a cat\na photo of a fish\n# слова 猫\n", encoding="utf-8")
    flags = [f"--data={data}", f"--outdir={folder}/runs", "--kd=demo", f"--kd-prompts={folder}/слова.txt", *SMALL]
    status, output = run(train.main, flags, encoding, tmp_path / "train.txt")
    assert status == 0, output
    assert r"\u043a\u043e\u0442" in output
    (run_dir,) = (folder / "runs").iterdir()
    assert "кот 猫.zip" in (run_dir / "log.txt").read_text(encoding="utf-8")
    (snapshot,) = run_dir.glob("network-snapshot*")
    made = [f"--network={snapshot}", "--seeds=0-3", f"--outdir={folder}/картинки"]
    status, output = run(generate.main, made, encoding, tmp_path / "generate.txt")
    assert status == 0, output
    measured = [f"--fakes={folder}/картинки", f"--data={data}", "--detector=demo", "--metrics=kid4_full"]
    status, output = run(evaluate.main, measured, encoding, tmp_path / "evaluate.txt")
    assert status == 0, output
    status, output = run(report.main, [str(run_dir), "--samples=4"], encoding, tmp_path / "report.txt")
    assert status == 0, output
    assert "кот 猫.zip" in (run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "main", [train.main, generate.main, evaluate.main, report.main, probe], ids=lambda main: main.__module__
)
def test_help(main: Callable[[list[str]], object], tmp_path: Path) -> None:
    status, output = run(main, ["--help"], "ascii", tmp_path / "help.txt")
    assert status == 0, output
    assert "--data" in output or "--network" in output


def test_a_refusal(tmp_path: Path) -> None:
    for main, flags in ((patch, ["--repo=данные"]), (probe, ["--data=данные"]), (train.main, ["--data=данные/a.zip"])):
        status, output = run(main, flags, "cp1252", tmp_path / f"{len(list(tmp_path.iterdir()))}.txt")
        assert status == 2, output
        assert r"\u0434\u0430\u043d" in output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    ("program", "words", "missing"),
    [
        ("evaluate", ["--fakes=images"], "--data"),
        ("generate", ["--seeds=0"], "--network"),
        ("dataset_tool", ["convert", "--dest=a.zip"], "--source"),
    ],
)
def test_a_flag_that_is_missing_is_named(program: str, words: list[str], missing: str) -> None:
    result = CliRunner().invoke(importlib.import_module(program).main, words)
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.output
