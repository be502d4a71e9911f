"""generate.py on a snapshot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from generate import main
from training.checkpoint import save_snapshot
from training.networks.stylegan2 import Generator


def snapshot(path: Path, c_dim: int = 0) -> Path:
    torch.manual_seed(0)
    G = Generator(z_dim=64, c_dim=c_dim, w_dim=64, img_resolution=16, img_channels=3, mapping_layers=2, channel_max=8)
    save_snapshot(path, {"G_ema": G}, {"class_names": ["cat", "dog"] if c_dim else None})
    return path


def generate(network: Path, outdir: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, [f"--network={network}", f"--outdir={outdir}", *flags])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_images_and_grid(tmp_path: Path) -> None:
    result = generate(snapshot(tmp_path / "n.safetensors"), tmp_path / "out", "--seeds=3-6,9", "--columns=2")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["grid.png", "seed0003.png", "seed0004.png", "seed0005.png", "seed0006.png", "seed0009.png"]
    grid = pixels(tmp_path / "out/grid.png")
    assert grid.shape == (48, 32, 3)
    np.testing.assert_array_equal(grid[32:, :16], pixels(tmp_path / "out/seed0009.png"))


def test_a_seed_is_the_official_latent(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    assert generate(path, tmp_path / "out", "--seeds=5", "--trunc=0.5").exit_code == 0
    torch.manual_seed(0)
    G = Generator(z_dim=64, c_dim=0, w_dim=64, img_resolution=16, img_channels=3, mapping_layers=2, channel_max=8)
    z = torch.from_numpy(np.random.RandomState(5).randn(1, 64)).float()
    with torch.no_grad():
        image = G.eval()(z, torch.zeros(1, 0), truncation_psi=0.5, noise_mode="const")
    expected = (image[0] * 127.5 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels(tmp_path / "out/seed0005.png"), expected)


def test_batches_do_not_change_the_images(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    for batch in (1, 4):
        assert generate(path, tmp_path / str(batch), "--seeds=0-3", f"--batch={batch}").exit_code == 0
    a, b = (pixels(tmp_path / name / "grid.png").astype(int) for name in ("1", "4"))
    assert abs(a - b).max() <= 1


def test_classes(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors", c_dim=2)
    for index in (0, 1):
        assert generate(path, tmp_path / str(index), "--seeds=0", f"--class={index}").exit_code == 0
    assert (pixels(tmp_path / "0/grid.png") != pixels(tmp_path / "1/grid.png")).any()


def test_a_class_by_its_name_and_what_the_pngs_say(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors", c_dim=2)
    for given in ("1", "dog"):
        assert generate(path, tmp_path / given, "--seeds=4,7", f"--class={given}", "--trunc=0.5").exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "1/grid.png"), pixels(tmp_path / "dog/grid.png"))
    tiles = [{"seed": seed, "psi": 0.5, "class": "dog"} for seed in (4, 7)]
    for name, expected in (("grid.png", {"tiles": tiles}), ("seed0007.png", tiles[1])):
        assert json.loads(Image.open(tmp_path / "dog" / name).text["kd_plugin"]) == expected


def test_what_the_user_may_not_have_meant(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    assert len(generate(path, tmp_path / "out", "--seeds=0-4").output.splitlines()) == 1
    result = generate(path, tmp_path / "out", "--seeds=1,1-3", "--trunc=0")
    assert result.exit_code == 0
    done, *remarks = result.output.splitlines()
    assert done.startswith("3 images and grid.png")
    assert remarks == [
        "--trunc=0: every image is the average one, so all are equal; give e.g. --trunc=0.7",
        "--seeds: 1 seeds were given more than once; each is one image",
        f"{tmp_path / 'out'} also holds 2 images of earlier calls, such as seed0000.png; evaluate.py "
        f"--fakes={tmp_path / 'out'} counts them too",
    ]
    assert pixels(tmp_path / "out/grid.png").shape == (16, 48, 3)
    assert (pixels(tmp_path / "out/seed0001.png") == pixels(tmp_path / "out/seed0003.png")).all()


@pytest.mark.parametrize(
    ("c_dim", "flags", "message"),
    [
        (0, ("--seeds=a",), "'a' is not a seed or a range of seeds; give e.g. 0-31 or 1,5,7-9"),
        (0, ("--seeds=9-3",), "'9-3' is not a seed"),
        (0, ("--seeds=0", "--class=1"), "--class: 1 was given, but the network was trained without labels"),
        (2, ("--seeds=0",), "--class: nothing was given; the network is conditional, give 0 to 1 (0 cat, 1 dog)"),
        (2, ("--seeds=0", "--class=2"), "--class: 2 was given"),
        (2, ("--seeds=0", "--class=dgo"), "--class: dgo was given; nearest: 'dog'; the network is conditional"),
        (2, ("--seeds=0", "--class=-1"), "--class: -1 was given"),
        (0, ("--seeds=0", "--network=none.safetensors"), "--network: 'none.safetensors' does not exist"),
    ],
)
def test_mistakes(c_dim: int, flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = generate(snapshot(tmp_path / "n.safetensors", c_dim), tmp_path / "out", *flags)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_snapshots(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(snapshot(tmp_path / "n.safetensors").read_bytes()[:5000])
    result = generate(tmp_path / "cut.safetensors", tmp_path / "out", "--seeds=0")
    assert result.exit_code == 2
    assert "cannot be read as a snapshot" in result.output
