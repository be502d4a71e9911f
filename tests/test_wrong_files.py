"""A file that was given to the wrong flag: the message says what it is, and what takes it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import evaluate
import generate
import train
from kd_plugin.errors import command_line
from kd_plugin.file_kinds import what_it_is
from tests.official.stand_in import official_pickle, small_networks
from training.drawings import DemoSpec, write_demo_set

SMALL = ["--cfg=demo", "--batch=4", "--cbase=64", "--cmax=16", "--kimg=0.004", "--tick=0.004", "--snap=1"]


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    write_demo_set(folder / "images.zip", DemoSpec(count=8, series=5, size=16))
    flags = [f"--data={folder / 'images.zip'}", f"--outdir={folder / 'runs'}", "--kd=demo", *SMALL]
    result = CliRunner().invoke(train.main, flags)
    assert result.exit_code == 0, result.output
    (run,) = (folder / "runs").iterdir()
    made = {"images": folder / "images.zip", "run": run, "runs": folder / "runs", "state": run / "training-state.pt"}
    (made["snapshot"],) = run.glob("network-snapshot-0*")
    made |= {"config": run / "config.json", "picture": run / "reals.png"}

    def write(name: str, content: bytes) -> None:
        made[name] = folder / name
        made[name].write_bytes(content)

    write("empty", b"")
    write("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605157884\n")
    write("page", b"\n<!DOCTYPE html>\n<html><body>404</body></html>")
    write("labels", json.dumps({"labels": [["a.png", 0]]}).encode())
    write("texts", b"a photo of a cat\na photo of a fish\n")
    write("cut", made["snapshot"].read_bytes()[:-100])
    write("cut_zip", made["images"].read_bytes()[:-100])
    write("official.pkl", official_pickle(small_networks()))
    other = io.BytesIO()
    Image.new("RGB", (4, 4)).save(other, "WEBP")
    write("webp", other.getvalue())
    made["script"] = folder / "doubling.pt"
    torch.jit.script(Doubling()).save(str(made["script"]))
    made["checkpoint"] = folder / "checkpoint.pt"
    torch.save({"epoch": 1, "optimizer": torch.zeros(2)}, made["checkpoint"])
    made["table"] = folder / "table.npz"
    np.savez(made["table"], a=np.zeros(2))
    made["transformers"] = folder / "model.safetensors"
    safetensors.torch.save_file(
        {"text_model.a": torch.zeros(1), "vision_model.b": torch.zeros(1)}, made["transformers"]
    )
    made["tar"] = folder / "images.tar.gz"
    with tarfile.open(made["tar"], "w:gz") as archive:
        archive.add(made["picture"], "a.png")
    with zipfile.ZipFile(folder / "texts.zip", "w") as archive:
        archive.write(made["texts"], "a.txt")
    made["zip"] = folder / "texts.zip"
    return made


KINDS = {
    "images": "a zip of images: --data, --reference and --fakes take it",
    "run": "the folder of a run: --resume=",
    "runs": "a folder of runs: give one of them, such as",
    "state": "the state of a run: --resume takes the folder",
    "snapshot": "a snapshot of this trainer: --network takes it",
    "config": "the config.json of a run: --config takes it",
    "picture": "a picture (a PNG): --data takes a folder or a zip of them",
    "empty": "an empty file",
    "lfs": "a placeholder of Git LFS",
    "page": "a web page",
    "labels": "a dataset.json: it belongs into the folder or zip of --data",
    "texts": "a text file: ",
    "cut": "a safetensors file that is cut off",
    "cut_zip": "a zip or a torch file that is cut off",
    "official.pkl": "a network pickle of the official code",
    "webp": "a picture (a WebP)",
    "script": "a TorchScript network: --detector takes it",
    "checkpoint": "weights or a checkpoint saved by torch",
    "table": "a numpy archive (.npz)",
    "transformers": "weights of the transformers package: give the folder",
    "tar": "an archive (gzip): unpack it",
    "zip": "a zip without images",
}


@pytest.mark.parametrize("name", KINDS)
def test_what_it_is(name: str, files: dict[str, Path]) -> None:
    assert f"; it is {KINDS[name]}" in what_it_is(files[name])


def test_flags_on_the_command_line_and_arguments_in_python(files: dict[str, Path]) -> None:
    assert what_it_is(files["texts"]) == "; it is a text file: prompts='FILE' takes texts, one per line"
    with command_line():
        assert what_it_is(files["texts"]) == "; it is a text file: --kd-prompts=FILE takes texts, one per line"


def test_nothing_is_said_of_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(1, 256)) * 9)
    for path in (tmp_path / "a", tmp_path / "none", tmp_path):
        assert what_it_is(path) == ""


Flags = Callable[[dict[str, Path], Path], list[str]]
BY_FLAG: dict[str, tuple[Flags, set[str]]] = {  # the flags with a wrong file, and the kinds that they take
    "--data": (lambda _files, path: [f"--data={path}"], {"images"}),
    "--config": (lambda files, path: [f"--data={files['images']}", f"--config={path}"], {"config"}),
    "--resume": (
        lambda files, path: [f"--data={files['images']}", f"--resume={path}"],
        {"snapshot", "run", "official.pkl"},
    ),
    "--kd=clip": (lambda files, path: [f"--data={files['images']}", f"--kd=clip:{path}"], set()),
    "--kd=script": (lambda files, path: [f"--data={files['images']}", f"--kd=script:{path}"], {"script"}),
    "--kd-prompts": (lambda files, path: [f"--data={files['images']}", "--kd=demo", f"--kd-prompts={path}"], {"texts"}),
    "--network": (lambda files, path: [f"--network={path}", "--seeds=0"], {"snapshot", "official.pkl"}),
    "--fakes": (
        lambda files, path: [f"--fakes={path}", f"--data={files['images']}", "--detector=demo"],
        {"images"},
    ),
    "--detector": (
        lambda files, path: [f"--fakes={files['images']}", f"--data={files['images']}", f"--detector={path}"],
        set(),
    ),
}  # fmt: skip
PROGRAMS = {"--network": generate.main, "--fakes": evaluate.main, "--detector": evaluate.main}
UNSAID = {("--detector", "script"), ("--kd=script", "table"), ("--kd-prompts", "empty")}  # other words say the same


@pytest.mark.parametrize("flag", BY_FLAG)
def test_every_kind_at_every_flag(flag: str, files: dict[str, Path], tmp_path: Path) -> None:
    flags, taken = BY_FLAG[flag]
    for name, path in files.items():
        if name in taken:
            continue
        arguments = flags(files, path)
        if flag != "--network":
            arguments += ["--metrics=kid4_full"] if flag in PROGRAMS else ["-n", *SMALL]
        if flag in ("--resume", "--config", "--network"):
            arguments = [argument for argument in arguments if argument != "-n"] + [f"--outdir={tmp_path / 'out'}"]
        result = CliRunner().invoke(PROGRAMS.get(flag, train.main), arguments)
        assert result.exit_code == 2, (name, result.output)
        assert isinstance(result.exception, SystemExit), (name, result.exception)
        if (flag, name) not in UNSAID and not (path.is_dir() and flag in ("--kd=clip", "--kd=script", "--kd-prompts")):
            assert KINDS[name] in result.output, (name, result.output)
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device that gives bytes without end")
@pytest.mark.parametrize(
    ("program", "flags"),
    [(train, ["--data=/dev/zero"]), (generate, ["--network=/dev/zero", "--seeds=0"]),
     (evaluate, ["--fakes=/dev/zero", "--data=demo", "--detector=demo"])],
    ids=["train", "generate", "evaluate"],
)  # fmt: skip
def test_what_can_be_read_without_end_is_refused(program: ModuleType, flags: list[str]) -> None:
    result = CliRunner().invoke(program.main, flags)
    assert result.exit_code == 2
    assert "it is a pipe or a device" in result.output
