"""The script: a snapshot in, one JSON line a metric out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import evaluate
from training.checkpoint import save_snapshot
from training.networks import Generator


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    G = Generator(
        z_dim=16, c_dim=0, w_dim=16, img_resolution=8, img_channels=3, mapping_layers=1, channel_base=64, channel_max=16
    )
    path = tmp_path_factory.mktemp("run") / "network-snapshot-000000.safetensors"
    save_snapshot(path, {"G_ema": G}, {})
    return path


def run(*flags: str) -> Result:
    return CliRunner().invoke(evaluate.main, [*flags, "--device=cpu"])


def test_one_line_of_json_a_metric(snapshot: Path, images_path: Path, detector_path: Path) -> None:
    flags = [f"--network={snapshot}", f"--data={images_path}", f"--detector={detector_path}"]
    result = run(*flags, "--metrics=kid20_full,fid20_full")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["metric"] for line in lines] == ["kid20_full", "fid20_full"]
    assert all((line["num_real"], line["num_fake"], line["detector"]) == (50, 20, "colours") for line in lines)
    assert lines[1]["results"]["fid20_full"] > 0
    assert run(*flags, "--metrics=fid20_full").stdout.splitlines() == result.stdout.splitlines()[1:]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--network=none.safetensors", "--network: 'none.safetensors' does not exist"),
        ("--data=none.zip", "--data: 'none.zip' is neither an existing zip or folder nor a known set"),
        ("--detector=none.pt", "--detector: 'none.pt' does not exist"),
        ("--metrics=fid5k", "--metrics: unknown metric 'fid5k'; nearest: 'fid5k_full'"),
        ("--resolution=16", "has images of 16 pixels, the network makes 8; give --resolution=8"),
        ("--device=gpu", "--device: 'gpu' is not a device"),
    ],
)
def test_mistakes_end_with_two_and_one_line(
    changed: str, message: str, snapshot: Path, images_path: Path, detector_path: Path
) -> None:
    flags = [f"--network={snapshot}", f"--data={images_path}", f"--detector={detector_path}", changed, "--device=cpu"]
    result = CliRunner().invoke(evaluate.main, [*flags, changed])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
