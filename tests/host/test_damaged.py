"""Files of a run that were damaged, edited or replaced: one line, exit 2, and nothing lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import evaluate
import generate
import report
import train
from tests.host.conftest import SMALL
from training.monitors.metrics import _comparable_values

RunTrain = Callable[..., Result]


@pytest.fixture(scope="session")
def _finished(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("damaged")
    flags = [f"--data={drawings}", f"--outdir={outdir}", "--cfg=demo", *SMALL, "--metrics=none"]
    result = CliRunner().invoke(train.main, flags)
    assert result.exit_code == 0, result.output
    (run,) = outdir.iterdir()
    return run


@pytest.fixture
def run(_finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_finished, tmp_path / _finished.name))


def newest(run: Path) -> Path:
    return max(run.glob("network-snapshot-*"))


def refusal(main: Any, *flags: str) -> str:
    result = CliRunner().invoke(main, list(flags))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    return result.output


CONFIGS: dict[str, Any] = {
    "kd": {"kd": None}, "kd text": {"kd": "clip"}, "data": {"data": None}, "data number": {"data": 5},
    "prompts": {"kd_prompts_used": 5}, "size": {"resolution": "32"}, "large": {"gamma": 10**400},
    "content": {"content": []}, "choice": {"arch": "residual"},
}  # fmt: skip


@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_json_that_was_edited(change: str, run: Path) -> None:
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIGS[change]))
    output = refusal(train.main, f"--config={path}", "-n")
    assert any(name in output for name in CONFIGS[change])
    assert CliRunner().invoke(report.main, [str(run), "--samples=2"]).exit_code in (0, 2)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"gamma": ' + "9" * 5000 + "}", "[]", "5", '"x"', "\0", "{"])
def test_a_config_json_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert "--config" in refusal(train.main, f"--config={tmp_path / 'config.json'}", "-n")


def test_a_byte_order_mark_is_no_damage(run: Path) -> None:
    path = run / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert CliRunner().invoke(train.main, [f"--config={path}", "-n"]).exit_code == 0


def rewritten(run: Path, change: Callable[[dict[str, Any]], Any], factor: float = 1.0) -> str:
    """The snapshot with another header, or other weights."""
    path = newest(run)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["kd_plugin"])
    tensors = {
        name: tensor * factor if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()
    }
    changed = change(header)
    save_file(tensors, path, {"kd_plugin": json.dumps(header if changed is None else changed)})
    return f"--network={path}"


@pytest.mark.parametrize(("change", "words"), [
    (lambda header: [1], "header"),
    (lambda header: header.pop("networks") and None, "header"),
    (lambda header: header["networks"].update(G_ema=5), "header"),
    (lambda header: header["networks"]["G_ema"].update(foo=1), "header"),
    (lambda header: header.update(format=9), "a later version (format 9"),
])  # fmt: skip
def test_a_snapshot_with_another_header(change: Any, words: str, run: Path, tmp_path: Path) -> None:
    output = refusal(generate.main, rewritten(run, change), "--seeds=0", f"--outdir={tmp_path / 'out'}")
    assert words in output
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite(run: Path, tmp_path: Path) -> None:
    network = rewritten(run, lambda header: None, float("nan"))
    assert "are not finite" in refusal(generate.main, network, "--seeds=0", f"--outdir={tmp_path / 'out'}")


@pytest.mark.parametrize("state", [[1], torch.zeros(2), {"a": 1}])
def test_a_state_of_another_program(state: Any, run: Path, drawings: Path) -> None:
    torch.save(state, run / "training-state.pt")
    output = refusal(train.main, f"--data={drawings}", "--cfg=demo", *SMALL, f"--resume={run}")
    assert "is not the state of a run" in output


LINES = [
    "\xff", "null", '{"Progress/kimg": 1}', '{"Progress/kimg": {"mean": Infinity}, "a": {"mean": "x"}}', "[" * 9999,
    '{"Progress/kimg": {"mean": 1}, "Loss/scores/real": {"mean": 1e308}, "Loss/scores/fake": []}',
]  # fmt: skip
METRICS = [
    '{"results": {"fid5_full": null}, "kimg": 1}', '{"results": null, "kimg": 1}', "[]",
    '{"results": {}, "kimg": null}', '{"results": {"fid5_full": 3}, "kimg": "x", "snapshot_pkl": 5}',
]  # fmt: skip


def test_a_report_on_a_damaged_run(run: Path) -> None:
    """What can be read is shown."""
    (run / "stats.jsonl").write_bytes("\n".join(LINES).encode("latin-1"))
    (run / "metric-fid5_full.jsonl").write_text("\n".join(METRICS))
    (run / "reals.png").write_bytes(b"")
    (run / "fakes000009.png").write_bytes(b"\x89PNG")
    result = CliRunner().invoke(report.main, [str(run), "--samples=0"])
    assert result.exit_code == 0, result.output
    assert "Not every grid is shown; left out: 1." in (run / "report.html").read_text()


@pytest.mark.parametrize("flag", ["--data", "--outdir", "--resume", "--config", "--kd", "--kd-prompts", "--metrics"])
def test_an_empty_value(flag: str) -> None:
    """Of a shell's variable that was never set: the current folder is not meant."""
    assert f"{flag}: nothing was given" in refusal(train.main, f"{flag}=")
    assert f"{flag}: a text with a zero byte was given" in refusal(train.main, f"{flag}=a\0b")


def test_names_that_are_too_long(run: Path) -> None:
    network = newest(run)
    output = refusal(generate.main, f"--network={network}", "--seeds=0", f"--outdir={'x' * 300}")
    assert "--outdir" in output


def test_a_finished_run_keeps_its_config(run: Path, drawings: Path, tmp_path: Path) -> None:
    before = (run / "config.json").read_text()
    flags = [f"--data={drawings}", "--cfg=demo", *SMALL, "--kimg=0.008", f"--outdir={tmp_path / 'other'}"]
    result = CliRunner().invoke(train.main, [*flags, "--metrics=none", f"--resume={run}"])
    assert result.exit_code == 0, result.output
    assert (run / "config.json").read_text() == before


def test_the_best_is_chosen_among_values_that_compare(tmp_path: Path) -> None:
    lines = [
        {"results": {"fid9_full": value}, "detector_sha256": "a", "dataset_fingerprint": reals}
        for value, reals in ((1.0, "one"), (9.0, "other"), (8.0, "other"))
    ]
    (tmp_path / "metric-fid9_full.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _comparable_values(tmp_path, "fid9_full") == [9.0, 8.0]


def test_nothing_to_measure(run: Path, drawings: Path) -> None:
    network = newest(run)
    output = refusal(evaluate.main, f"--network={network}", f"--data={drawings}", "--metrics=none", "--detector=demo")
    assert "--metrics=none: nothing is to be done" in output


def test_too_few_kimg(drawings: Path) -> None:
    assert "--kimg=1e-09 is less than one image" in refusal(train.main, f"--data={drawings}", "--kimg=1e-9", "-n")


def test_prompts_are_compared_as_texts(run_train: RunTrain, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a cat\na photo of a fish\n")
    flags = ["--kd=demo", f"--kd-prompts={prompts}", "--metrics=none"]
    assert run_train(*flags).exit_code == 0
    prompts.write_bytes(b"\xef\xbb\xbf# two\r\na photo of a cat\r\na photo of a fish\r\n")
    result = run_train(*flags, "--resume=latest", "--kimg=0.024")
    assert result.exit_code == 0, result.output
    assert "Resume:      at" in result.output
