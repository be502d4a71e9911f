"""generate.py on a snapshot."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from generate import main
from training.checkpoint import save_snapshot
from training.data.image_sets import ImageOptions, open_training_set
from training.generation import images as pictures
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
    assert names == [
        "grid.png",
        "index.json",
        "seed0003.png",
        "seed0004.png",
        "seed0005.png",
        "seed0006.png",
        "seed0009.png",
    ]
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


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_formats_and_what_the_files_tell(tmp_path: Path, format: str) -> None:
    path = snapshot(tmp_path / "n.safetensors", c_dim=2)
    result = generate(path, tmp_path / "out", "--seeds=4,7", "--class=dog", "--trunc=0.5", f"--format={format}")
    assert result.exit_code == 0, result.output
    exact = tmp_path / "exact"
    assert generate(path, exact, "--seeds=4,7", "--class=dog", "--trunc=0.5").exit_code == 0
    with Image.open(tmp_path / f"out/seed0007.{format}") as image:
        text = image.text["kd_plugin"] if format == "png" else image.getexif()[0x010E]
        assert json.loads(text) == {"seed": 7, "psi": 0.5, "class": "dog"}
        difference = np.asarray(image).astype(int) - pixels(exact / "seed0007.png")
    assert abs(difference).mean() <= (12 if format == "jpg" else 0)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["tiles"][1] == {
        "file": f"seed0007.{format}", "row": 0, "column": 1, "seed": 7, "psi": 0.5, "class": "dog"
    }  # fmt: skip


def test_arrays_and_images_of_their_w(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    assert generate(path, tmp_path / "out", "--seeds=0-4", "--trunc=0.5", "--format=npz").exit_code == 0
    assert generate(path, tmp_path / "png", "--seeds=0-4", "--trunc=0.5").exit_code == 0
    with np.load(tmp_path / "out/images.npz") as arrays:
        assert arrays["seed"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["images"].shape == (5, 16, 16, 3)
        assert arrays["w"].shape == (5, 6, 64)
        np.testing.assert_array_equal(arrays["images"][3], pixels(tmp_path / "png/seed0003.png"))
        np.savez(tmp_path / "one.npz", w=arrays["w"][3:4, :1])  # one w for all layers, as the official projector's
    for name, row in ((f"{tmp_path}/out/images.npz", 3), (f"{tmp_path}/one.npz", 0)):
        result = generate(path, tmp_path / "w", f"--projected-w={name}")
        assert result.exit_code == 0, result.output
        found = pixels(tmp_path / f"w/proj{row:02d}.png").astype(int)
        assert abs(found - pixels(tmp_path / "png/seed0003.png")).max() <= 1


def test_several_truncations_are_columns(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    assert generate(path, tmp_path / "out", "--seeds=3,4", "--trunc=0,0.5,1").exit_code == 0
    grid = pixels(tmp_path / "out/grid.png")
    assert grid.shape == (32, 48, 3)
    np.testing.assert_array_equal(grid[:16, :16], grid[16:, :16])  # psi 0: the average image
    for column, psi in enumerate((0, 0.5, 1)):
        assert generate(path, tmp_path / "one", "--seeds=4", f"--trunc={psi}").exit_code == 0
        one = pixels(tmp_path / "one/seed0004.png").astype(int)
        assert abs(grid[16:, 16 * column : 16 * column + 16] - one).max() <= 1
        assert (tmp_path / f"out/seed0004-psi{psi:g}.png").is_file()


def test_several_classes_are_rows(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors", c_dim=2)
    for given in ("cat,dog", "0,dog", "all"):
        assert generate(path, tmp_path / given, "--seeds=3-5", f"--class={given}").exit_code == 0
    assert pixels(tmp_path / "all/grid.png").shape == (32, 48, 3)
    assert (tmp_path / "all/grid.png").read_bytes() == (tmp_path / "cat,dog/grid.png").read_bytes()
    assert generate(path, tmp_path / "dog", "--seeds=5", "--class=dog").exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "0,dog/seed0005-dog.png"), pixels(tmp_path / "dog/seed0005.png"))


def test_a_zip_that_train_reads(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors", c_dim=2)
    result = CliRunner().invoke(main, [f"--network={path}", "--count=7", f"--out={tmp_path / 'fakes.zip'}"])
    assert result.exit_code == 0, result.output
    images = open_training_set(ImageOptions(data=str(tmp_path / "fakes.zip"), cond=True))
    assert len(images) == 7
    found, labels = images.gather(np.arange(7))
    assert labels.argmax(1).tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert generate(path, tmp_path / "out", "--seeds=5", "--class=dog").exit_code == 0
    assert abs(found[5].transpose(1, 2, 0).astype(int) - pixels(tmp_path / "out/seed0005.png")).max() <= 1
    first = (tmp_path / "fakes.zip").read_bytes()
    CliRunner().invoke(main, [f"--network={path}", "--count=7", f"--out={tmp_path / 'fakes.zip'}"])
    assert (tmp_path / "fakes.zip").read_bytes() == first


def test_what_lies_beside_the_images_is_not_an_image(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    assert generate(path, tmp_path / "out", "--seeds=0-2", "--trunc=0.5,1").exit_code == 0
    images = open_training_set(ImageOptions(data=str(tmp_path / "out")))
    assert len(images) == 6
    assert images.skipped.keys() <= {"grid of generate.py", "hidden"}, images.skipped


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_images_that_are_not_rgb(tmp_path: Path, channels: int) -> None:
    G = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=channels, mapping_layers=1, channel_max=8)
    save_snapshot(tmp_path / "n.safetensors", {"G_ema": G}, {})
    result = generate(tmp_path / "n.safetensors", tmp_path / "out", "--seeds=0")
    if channels == 5:
        assert result.exit_code == 2
        assert "--format=png: the network's images have 5 channels; give --format=npz" in result.output
        assert not (tmp_path / "out").exists()
        assert generate(tmp_path / "n.safetensors", tmp_path / "out", "--seeds=0", "--format=npz").exit_code == 0
    else:
        assert result.exit_code == 0, result.output
        expected = (16, 16) if channels == 1 else (16, 16, channels)
        assert pixels(tmp_path / "out/seed0000.png").shape == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give one of --seeds, --count and --projected-w; none of them was given"),
        (("--seeds=1", "--count=3"), "--seeds and --count of them was given"),
        (("--seeds=1", "--trunc=half"), "--trunc: 'half' is not a number; give e.g. 0.7"),
        (("--seeds=1", "--trunc=nan"), "--trunc: 'nan' is not a number"),
        (("--seeds=1", "--format=gif"), "'gif' is not one of 'png', 'jpg', 'webp', 'npz'"),
        (("--count=2", "--out=fakes.tar"), "--out: 'fakes.tar' was given, its name must end with .zip"),
        (("--count=2", "--out=fakes.zip", "--format=jpg"), "--format=jpg: a zip holds PNGs"),
        (("--projected-w=w.npz",), "--projected-w: 'w.npz' cannot be read as an .npz with an array 'w'"),
        (("--projected-w=w.npz", "--trunc=0.5"), "--trunc: has no effect on --projected-w"),
        (("--count=0",), "--count"),
    ],
)
def test_more_mistakes(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    result = generate(snapshot(tmp_path / "n.safetensors"), tmp_path / "out", *flags)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_w_of_another_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.zeros([2, 5, 32], np.float32))
    result = generate(snapshot(tmp_path / "n.safetensors"), tmp_path / "out", f"--projected-w={tmp_path / 'w.npz'}")
    assert result.exit_code == 2
    assert "is float32 [2, 5, 32], this network takes [N, 6, 64]" in result.output


def test_a_grid_that_no_program_opens_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_GRID_PIXELS", 3 * 16 * 16)
    result = generate(snapshot(tmp_path / "n.safetensors"), tmp_path / "out", "--seeds=0-3")
    assert result.exit_code == 0
    assert "no grid: 4 images of 16 pixels are more than one picture can show" in result.output
    assert not (tmp_path / "out/grid.png").exists()


def test_sampling_imports_no_teacher(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "n.safetensors")
    program = f"""
        import sys
        from generate import generate
        generate(network={str(path)!r}, seeds="0", outdir={str(tmp_path / "out")!r})
        loaded = {{"clip", "open_clip", "transformers", "gradio", "onnx"}} & sys.modules.keys()
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2], check=True)


def test_no_file_overwrites_another(tmp_path: Path) -> None:
    """Classes that are alike in a file's name, and psi that differ late."""
    G = Generator(z_dim=8, c_dim=3, w_dim=8, img_resolution=16, img_channels=3, mapping_layers=1, channel_max=8)
    save_snapshot(tmp_path / "n.safetensors", {"G_ema": G}, {"class_names": ["a/b", "a b", "x" * 300]})
    words = ["--seeds=0", "--class=all", "--trunc=0.123456789,0.123456788,1"]
    assert generate(tmp_path / "n.safetensors", tmp_path / "out", *words).exit_code == 0
    index = json.loads((tmp_path / "out/index.json").read_text())
    names = {tile["file"] for tile in index["tiles"]}
    assert len(names) == 9
    assert all((tmp_path / "out" / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds=1", "--outdir=out", "--out=a.zip"], "--outdir: --out names a zip, and only one of them is written"),
        (["--seeds=1", "--out=a.zip", "--columns=3"], "--columns: there is no grid"),
        (["--seeds=1", "--format=npz", "--columns=3"], "--columns: there is no grid"),
        (["--seeds=1", "--trunc-cutoff=999"], "--trunc-cutoff: 999 was given, the network has 6 layers"),
        (["--seeds=1", "--out=folder.zip"], "--out: 'folder.zip' is a folder; give another name"),
        (["--seeds=1", f"--out={'x' * 300}.zip"], "cannot be a file (File name too long)"),
        (["--seeds=1", "--outdir=taken"], "seed0001.png' is a folder; give another name"),
        (["--projected-w=picture.png"], "array 'w'; it is a picture (a PNG)"),
        (["--seeds=1", f"--network={'x' * 300}"], "does not exist"),
        (["--seeds=1", "--network=http://[bad"], "is not an address"),
        (["--seeds=1", "--network=https://\u00fc.invalid/\u00fc"], "is not an address"),
    ],
)
def test_still_more_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot(tmp_path / "n.safetensors")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "taken/seed0001.png").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save("picture.png")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["--network=n.safetensors", *words])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "allow_pickle" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_digit_of_another_script_is_no_class(tmp_path: Path) -> None:
    result = generate(snapshot(tmp_path / "n.safetensors", c_dim=2), tmp_path / "out", "--seeds=0", "--class=\u0661")
    assert result.exit_code == 2
