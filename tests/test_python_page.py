"""docs/python.md is followed as in a notebook: its cells in one namespace; and what the functions refuse."""

from __future__ import annotations

import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import generate
import train
from dnnlib.errors import UserError
from kd_plugin.errors import arg
from tests.forked import Forked
from training.cli import with_arguments
from training.resume import read_config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHORTER = {"PATH/OF/THE/CLONE": str(ROOT), "kimg=2": "kimg=0.064", "kimg=3": "kimg=0.096", "500": "64"}


def notebook(folder: Path) -> None:
    """All cells, then what they promise."""
    os.chdir(folder)
    matplotlib.use("agg")
    warnings.simplefilter("ignore")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in CELLS:
        for longer, shorter in SHORTER.items():
            cell = cell.replace(longer, shorter)
        exec(cell, names)
    assert names["run"].finished
    assert names["run"].kimg == pytest.approx(0.096)
    assert len(list((folder / "runs").iterdir())) == 1  # the second call continued the first
    assert [len(line.get_xdata()) for line in names["axes"].lines] == [len(names["stats"]["Progress/kimg"])] * 2
    assert np.isfinite(names["stats"]["Loss/scores/real"]).all()
    assert [path.name for path in names["made"].images] == [f"seed{seed:04d}.png" for seed in range(8)]
    # One seed, one image: as a tensor and as the file that the program writes.
    np.testing.assert_array_equal(names["pixels"][1], np.asarray(Image.open(names["made"].images[1])))
    between, images = names["between"], names["images"]
    assert between.shape == (8, *images.shape[1:])
    torch.testing.assert_close(between[[0, -1]], images[:2], atol=1e-4, rtol=0)
    assert names["result"].metric == "mem64"
    assert 0 <= names["result"].value <= 1


def test_the_page_runs_as_a_notebook(tmp_path: Path) -> None:
    process = Forked(notebook, tmp_path, out=tmp_path / "output.txt")
    assert process.wait() == 0, process.output
    assert "Finished at 0.1 kimg" in process.output


def test_training_in_a_thread(tmp_path: Path) -> None:
    made: list[train.Run] = []
    options = {"data": "demo", "kimg": 0.032, "cbase": 256, "outdir": tmp_path}
    thread = threading.Thread(target=lambda: made.append(train.train(**options)))
    thread.start()
    thread.join()
    assert made[0].finished
    assert made[0].snapshot.is_file()


MISTAKES = {
    "train, unknown": (lambda: train.train(dat="demo"), "unknown argument 'dat'; nearest: 'data'"),
    "train, of the distillation": (lambda: train.train(data="demo", kd="demo", kd_mach=1.0), "'kd_match'"),
    "train, number": (lambda: train.train(data="demo", kimg=float("nan")), "kimg: nan was given"),
    "train, type of resolution": (
        lambda: train.train(data="demo", resolution="64"),
        "'resolution': '64' is not of type",
    ),
    "train, type of subset": (lambda: train.train(data="demo", subset=1.5), "'subset': 1.5 is not of type int"),
    "train, type of mirror": (lambda: train.train(data="demo", mirror="yes"), "'mirror': 'yes' is not of type bool"),
    "train, type of data": (lambda: train.train(data=3), "'data': 3 is not of type str"),
    "train, none": (lambda: train.train(data="demo", kimg=None), "'kimg': None is not of type float"),
    "train, one option twice": (lambda: train.train(data="demo", kd="demo", kd_teacher="clip"), "'kd_teacher'"),
    "train, teacher": (lambda: train.train(data="demo", kd="nobody"), "kd='nobody': unknown teacher"),
    "train, type": (lambda: train.train(data="demo", kimg="many"), "'kimg': 'many' is not of type float"),
    "train, choice": (lambda: train.train(data="demo", arch="res"), "arch: res was given, it must be one of resnet"),
    "train, an empty text": (lambda: train.train(data=""), "data: nothing was given"),
    "train, variant": (lambda: train.train(data="demo", kd="demo", kd_variant=5), "kd_variant=5 is unknown"),
    "train, data": (lambda: train.train(data=Path("none.zip")), "data"),
    "train, no teacher": (lambda: train.train(data="demo", kd_match=2.0), "kd_match: no teacher was given"),
    "train, processes": (lambda: train.train(data="demo", gpus=2), "gpus=2: a function trains in one process"),
    "generate, missing": (
        lambda: generate.generate(network="n.safetensors"),
        "give one of seeds, count and projected_w",
    ),
    "generate, unknown": (lambda: generate.generate(truncation=0.5), "unknown argument 'truncation'; nearest: 'trunc'"),
    "generate, number": (lambda: generate.generate(network="n", seeds="0", batch=0), "batch: 0 was given"),
    "generate, class": (lambda: generate.generate(network="n", seeds="0", class_=3), "'class': 3 is not of type str"),
    "generate, file": (lambda: generate.generate(network=Path("n.pkl"), seeds="0"), "network: 'n.pkl' does not exist"),
    "evaluate, missing": (lambda: evaluate.evaluate(data="demo"), "give either network='SNAPSHOT' or fakes='DIR'"),
    "evaluate, metric": (lambda: evaluate.evaluate(data="demo", fakes="x", metrics="fdi5k"), "metrics"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_error_that_names_the_argument(mistake: str) -> None:
    call, expected = MISTAKES[mistake]
    with pytest.raises(UserError) as raised:
        call()
    assert expected in str(raised.value)
    assert "--" not in str(raised.value)


def test_flags_become_arguments() -> None:
    names = train.argument_names()
    for text, expected in {
        "--kd-view=clean: no; give --gamma=0.7 (--batch-gpu=4).": "kd_view='clean': no; give gamma=0.7 (batch_gpu=4).",
        "--detector=script:a+b: it - or - not": "detector='script:a+b': it - or - not",
        "--data='d/a b.zip' is gone": "data='d/a b.zip' is gone",
        "'x/obama--data.zip', a --unknown flag": "'x/obama--data.zip', a --unknown flag",
        "run evaluate.py --data=FILE --kd=demo or --kd": "run evaluate.py --data=FILE --kd=demo or kd",
        "(--kd-match) --resume=latest": "(kd_match) resume='latest'",
    }.items():
        assert with_arguments(text, names) == expected


def test_a_call_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """Random state, TF32, and how messages of the plug-in name options."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    run = train.train(data="demo:16@3", kd="demo", kimg=0.032, outdir=tmp_path / "runs", holdout=0, mirror=True)
    assert torch.backends.cuda.matmul.allow_tf32
    torch.testing.assert_close(torch.cat([first, torch.rand(1)]), expected)
    assert arg("view", "clean") == "view='clean'"
    # Continued with another rhythm of saving: the files that are there.
    again = train.train(config=run.folder / "config.json", resume=run.folder, tick=100.0)
    assert again.snapshot == run.snapshot
    assert again.grid.is_file()


def test_none_is_a_value(tmp_path: Path) -> None:
    run = train.train(data="demo:16@3", kimg=0.016, outdir=tmp_path, conv_clamp=None, wandb=None)
    assert read_config(run.folder / "config.json").options["conv_clamp"] is None


def test_notes_are_warnings_at_the_callers_line(tmp_path: Path) -> None:
    run = train.train(data="demo:16@3", kimg=0.016, outdir=tmp_path / "runs")
    with pytest.warns(UserWarning, match="^trunc=0: every image is the average one") as noted:
        generate.generate(network=run.snapshot, seeds="0-3", trunc=0.0, outdir=tmp_path / "out")
    assert {Path(each.filename).name for each in noted} == {"test_python_page.py"}
    with pytest.warns(UserWarning, match="^fakes holds 4 images"):
        evaluate.evaluate(fakes=tmp_path / "out", data="demo:16@3", metrics="div3", detector="demo")
