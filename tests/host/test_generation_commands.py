"""generate.py style-mixing, interpolate and project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from generate import latents, main
from training.checkpoint import save_snapshot
from training.generation.interpolation import lerp, slerp
from training.generation.likeness import load_likeness
from training.networks import biggan
from training.networks.stylegan2 import Generator
from training.report.image_grid import to_pixels


def make(path: Path, **options: int) -> tuple[Path, Generator]:
    torch.manual_seed(0)
    sizes = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 16, "img_channels": 3, "mapping_layers": 2}
    G = Generator(**{**sizes, "channel_base": 256, "channel_max": 16, **options})
    save_snapshot(path, {"G_ema": G}, {"class_names": ["cat", "dog"] if G.c_dim else None})
    return path, G.eval().requires_grad_(False)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_mixing_takes_each_layer_from_where_it_says(tmp_path: Path) -> None:
    path, G = make(tmp_path / "n.safetensors")
    out = tmp_path / "out"
    result = run("style_mixing", f"--network={path}", "--rows=0,1", "--cols=2-4", "--styles=1,4-5", f"--outdir={out}")
    assert result.exit_code == 0, result.output
    assert "6 images and grid.png" in result.output
    grid = pixels(out / "grid.png")
    assert grid.shape == (48, 64, 3)
    assert not grid[:16, :16].any()
    ws = G.mapping(latents([0, 1, 2, 3, 4], 16))
    plain = to_pixels(G.synthesis(ws, "const")).astype(int)
    for place in range(3):  # the columns' own images above, the rows' on the left
        assert abs(grid[:16, 16 * (place + 1) : 16 * (place + 2)] - plain[2 + place]).max() <= 1
    assert abs(grid[32:, :16] - plain[1]).max() <= 1
    mixed = ws[1:2].clone()
    mixed[:, [1, 4, 5]] = ws[3:4][:, [1, 4, 5]]
    expected = to_pixels(G.synthesis(mixed, "const"))[0].astype(int)
    assert abs(pixels(out / "1-3.png") - expected).max() <= 1
    assert abs(grid[32:, 32:48] - expected).max() <= 1
    tiles = json.loads((out / "index.json").read_text())["tiles"]
    assert tiles[4] == {"file": "1-3.png", "row": 1, "column": 3, "styles": [1, 4, 5], "psi": 1.0}


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_a_film_of_each_kind(tmp_path: Path, ending: str) -> None:
    path, _ = make(tmp_path / "n.safetensors")
    film = tmp_path / "new" / f"way.{ending}"
    result = run(
        "interpolate", f"--network={path}", "--seeds=3,1", "--frames=4", "--zoom=2", "--fps=10", f"--out={film}"
    )
    assert result.exit_code == 0, result.output
    assert "8 frames, 0.8 s" in result.output
    if ending == "mp4":
        import imageio_ffmpeg

        frames = imageio_ffmpeg.read_frames(str(film))
        about = next(frames)
        assert about["size"] == (32, 32)
        assert about["fps"] == 10
        assert sum(1 for _ in frames) == 8
    else:
        with Image.open(film) as image:
            assert image.n_frames == 8
            assert image.size == (32, 32)


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("loop", [True, False])
def test_the_way_leads_from_seed_to_seed(tmp_path: Path, space: str, loop: bool) -> None:
    path, G = make(tmp_path / "n.safetensors", c_dim=2)
    words = [f"--network={path}", "--seeds=3,1,8", "--class=cat,dog,cat", "--trunc=0.7", "--frames=2", f"--loop={loop}"]
    assert run("interpolate", *words, f"--space={space}", f"--out={tmp_path / 'a.webp'}").exit_code == 0
    z, c = latents([3, 1, 8], 16), torch.eye(2)[[0, 1, 0]]
    halfway = (slerp(z[0], z[1], 0.5)[None], c[:2].mean(0, keepdim=True))
    if space == "w":
        ws = lerp(*G.mapping(z[:2], c[:2], 0.7), 0.5)[None]
        middle = G.synthesis(ws, "const")
    else:
        middle = G(*halfway, truncation_psi=0.7, noise_mode="const")
    ends = to_pixels(G(z, c, truncation_psi=0.7, noise_mode="const"))
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == (6 if loop else 5)
        expected = {0: ends[0], 1: to_pixels(middle)[0], 2: ends[1], 4: ends[2]}
        for frame, picture in expected.items():
            image.seek(frame)
            difference = abs(np.asarray(image.convert("RGB")).astype(int) - picture)
            assert difference.mean() < 25  # WebP loses some of what is nearly noise
            others = [abs(other.astype(int) - np.asarray(image.convert("RGB"))).mean() for other in expected.values()]
            assert difference.mean() == min(others)


def test_slerp_keeps_the_length_and_the_angle() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close(middle, torch.tensor([1.0, 1.0]) * 3 / 2**0.5)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), torch.tensor([3.0, 0.0]))
    assert slerp(a, -a, 0.5).isfinite().all()


def test_biggan_has_z_but_no_w(tmp_path: Path) -> None:
    G = biggan.Generator(z_dim=16, c_dim=0, img_resolution=16, img_channels=3, channels=16)
    save_snapshot(tmp_path / "b.safetensors", {"G_ema": G}, {})
    network = f"--network={tmp_path / 'b.safetensors'}"
    assert run("interpolate", network, "--seeds=0,1", "--frames=2", f"--out={tmp_path / 'a.gif'}").exit_code == 0
    for words in (
        ["interpolate", "--space=w", "--seeds=0,1", f"--out={tmp_path / 'b.gif'}"],
        ["style-mixing", "--rows=0", "--cols=1", f"--outdir={tmp_path / 'out'}"],
        ["project", "--target=a.png", f"--outdir={tmp_path / 'out'}"],
    ):
        result = run(words[0], network, *words[1:])
        assert result.exit_code == 2
        assert "needs a network with an intermediate latent w; biggan has none" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("detector", ["pixels", "demo"])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_projection_finds_the_image_of_a_w(tmp_path: Path, detector: str, channels: int) -> None:
    path, G = make(tmp_path / "n.safetensors", img_channels=channels)
    assert run(f"--network={path}", "--seeds=5", f"--outdir={tmp_path}").exit_code == 0
    words = [f"--network={path}", f"--target={tmp_path / 'seed0005.png'}", f"--detector={detector}"]
    result = run("project", *words, "--steps=150", f"--outdir={tmp_path / 'p'}")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "p/projected_w.npz") as arrays:
        w = torch.from_numpy(arrays["w"])
    assert w.shape == (1, G.num_ws, 16)
    assert torch.equal(w[:, :1].expand_as(w), w)
    target, found = pixels(tmp_path / "p/target.png"), pixels(tmp_path / "p/proj.png")
    np.testing.assert_array_equal(target, pixels(tmp_path / "seed0005.png"))
    start = to_pixels(G.synthesis(G.mapping(torch.randn(2000, 16)).mean(0, keepdim=True), "const"))[0]
    start = start[:, :, 0] if channels == 1 else start
    assert abs(found - target).mean() < 0.5 * abs(start.astype(int) - target).mean()
    again = run(
        f"--network={path}", f"--projected-w={tmp_path / 'p/projected_w.npz'}", f"--outdir={tmp_path / 'again'}"
    )
    assert again.exit_code == 0, again.output
    assert abs(pixels(tmp_path / "again/proj00.png") - found).max() <= 1
    with Image.open(tmp_path / "p/progress.png") as image:
        assert image.width > 1000


def test_projection_to_a_w_for_each_layer_is_repeatable(tmp_path: Path) -> None:
    path, G = make(tmp_path / "n.safetensors", c_dim=2)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "t.jpg")
    found = []
    for name in ("a", "b"):
        words = [
            f"--network={path}",
            f"--target={tmp_path / 't.jpg'}",
            "--class=dog",
            "--space=w+",
            "--detector=pixels",
        ]
        assert run("project", *words, "--steps=5", f"--outdir={tmp_path / name}").exit_code == 0
        with np.load(tmp_path / name / "projected_w.npz") as arrays:
            found.append(arrays["w"])
    np.testing.assert_array_equal(*found)
    assert (found[0][:, :1] != found[0][:, 1:]).any()
    assert found[0].shape == (1, G.num_ws, 16)


def test_likeness_of_pixels_and_of_a_teacher() -> None:
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    for spec in ("pixels", "demo"):
        features = load_likeness(spec, torch.device("cpu"))
        near = features((images + 0.01).requires_grad_())
        distance = (near - features(images)).square().sum(1)
        assert (distance < (features(images.flip(0)) - features(images)).square().sum(1)[0]).all()
        assert distance.requires_grad


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["style-mixing", "--rows=0"], "Missing option '--cols'"),
        (["style-mixing", "--rows=a", "--cols=1"], "--rows: 'a' is not a seed"),
        (["style-mixing", "--rows=0", "--cols=0-99"], "--cols: 100 seeds were given, at most 64 fit"),
        (
            ["style-mixing", "--rows=0", "--cols=1", "--styles=6"],
            "--styles: '6' was given; the network has the layers 0 to 5",
        ),
        (["style-mixing", "--rows=0", "--cols=1", "--trunc=1,2"], "--trunc: 1,2 was given, one number is taken here"),
        (["interpolate", "--seeds=0"], "--seeds: '0' was given; a way leads from one seed to another"),
        (
            ["interpolate", "--seeds=0,1", "--out=a.avi"],
            "--out: 'a.avi' was given, its name must end with .mp4, .gif or",
        ),
        (["interpolate", "--seeds=0-9", "--frames=99999"], "--frames: 999990 frames in all"),
        (
            ["interpolate", "--seeds=0,1", "--class=0"],
            "--class: 0 was given, but the network was trained without labels",
        ),
        (
            ["project", "--target=nothing.png"],
            "--target: 'nothing.png' cannot be read as a picture (it does not exist)",
        ),
        (["project", "--target=n.safetensors"], "it is a snapshot of this trainer"),
        (["project", "--target=t.png", "--detector=clop"], "--detector: 'clop' does not exist"),
        (["project", "--target=t.png", "--detector=script:nothing.pt"], "--detector=script: there is no image"),
        (["project", "--target=t.png", "--detector=pixels", "--lr=1e15"], "--lr=1e+15: the distance is not finite"),
        (["interpolate", "--seeds=0,1", "--out=a.gif", "--fps=60"], "--fps: 60 was given, a GIF shows at most 50"),
        (["interpolte"], "there is no command 'interpolte'; nearest: 'interpolate'"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "n.safetensors")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "t.png")
    before = sorted(tmp_path.iterdir())
    result = run(words[0], "--network=n.safetensors", *words[1:])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_a_way_may_return(tmp_path: Path) -> None:
    """Seeds and classes in the order that was given, some of them twice."""
    path, _ = make(tmp_path / "n.safetensors", c_dim=2)
    for words in (["--seeds=3,4,3", "--class=cat"], ["--seeds=5,5", "--class=cat,dog"]):
        out = tmp_path / "a.gif"
        result = run(
            "interpolate", f"--network={path}", *words, "--frames=2", "--loop=false", "--fps=25", f"--out={out}"
        )
        assert result.exit_code == 0, result.output
        with Image.open(out) as image:
            assert image.n_frames == 2 * words[0].count(",") + 1
            assert image.info["duration"] == 40
    result = run("interpolate", f"--network={path}", "--seeds=3,4", "--class=cat,all", f"--out={tmp_path / 'b.gif'}")
    assert result.exit_code == 2
    assert "--class: all was given, one class is taken here" in result.output
