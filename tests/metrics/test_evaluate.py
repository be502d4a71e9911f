"""The script: a snapshot in, one JSON line a metric out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import evaluate
from training.checkpoint import save_snapshot
from training.data.dataset import ImageDataset
from training.metrics import ImageFolder, Reals, load_detector, parse_metrics
from training.metrics import evaluate as measure
from training.networks.stylegan2 import Generator

ROOT = Path(__file__).parents[2]


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


class Quarters(torch.nn.Module):
    """A "perceptual" network."""

    def forward(self, images: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        assert return_lpips
        assert not resize_images
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_path_lengths(snapshot: Path, images_path: Path, detector_path: Path, tmp_path: Path) -> None:
    torch.jit.script(Quarters()).save(str(tmp_path / "quarters.pt"))
    flags = [f"--network={snapshot}", f"--data={images_path}", f"--detector={detector_path}"]
    result = run(*flags, f"--lpips={tmp_path / 'quarters.pt'}", "--metrics=ppl2_wend_30,kid20_full")
    assert result.exit_code == 0, result.output
    paths, kid = (json.loads(line) for line in result.stdout.splitlines())
    assert paths["results"]["ppl2_wend_30"] > 0
    assert (paths["detector"], paths["num_fake"], kid["detector"]) == ("quarters", 30, "colours")
    folder = run(*flags[1:], f"--fakes={images_path}", "--metrics=ppl2_wend_30")
    assert folder.exit_code == 2
    assert "ppl2_wend_30 follows paths through a generator's latent space" in folder.stderr
    missing = run(*flags, "--lpips=none.pt", "--metrics=ppl2_wend_30")
    assert "--lpips: 'none.pt' does not exist" in missing.stderr


def test_two_folders_of_mixed_pictures(images_path: Path, detector_path: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    rng = np.random.default_rng(1)
    for k, (mode, suffix, size) in enumerate([("RGB", "png", 8), ("L", "png", 30), ("RGB", "JPEG", 16)] * 2):
        shape = (size, size + k, 3) if mode == "RGB" else (size, size + k)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(fakes / f"{k}.{suffix}")
    flags = [f"--fakes={fakes}", f"--data={images_path}", f"--detector={detector_path}"]
    result = run(*flags, "--metrics=kid6_full")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert (line["num_fake"], line["num_real"]) == (6, 50)
    assert line["resize"] == "reals none, fakes centre square, Lanczos to 8"
    enlarged = json.loads(run(*flags, "--metrics=kid6_full", "--resolution=16").stdout)
    assert enlarged["resolution"] == 16
    assert enlarged["dataset_fingerprint"] != line["dataset_fingerprint"]
    too_many = run(*flags, "--metrics=kid7_full")
    assert too_many.exit_code == 2
    assert "--fakes: 'fakes' holds 6 images, --metrics needs 7" in too_many.stderr


def test_the_same_pictures_are_at_distance_zero(images_path: Path, detector_path: Path) -> None:
    flags = [f"--fakes={images_path}", f"--data={images_path}", f"--detector={detector_path}"]
    result = run(*flags, "--metrics=fid50_full,pr50_full,mem50")
    fid, pr, mem = (json.loads(line)["results"] for line in result.stdout.splitlines())
    assert fid["fid50_full"] == pytest.approx(0, abs=1e-6)
    assert pr == {"pr50_full_precision": 1, "pr50_full_recall": 1}
    assert mem["mem50_auc"] == 1


def test_what_is_noted_beside_the_figures(images_path: Path, detector_path: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for seed in range(8):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(fakes / f"seed{seed:04d}.png")
    Image.new("RGB", (16, 32)).save(fakes / "grid.png")
    (fakes / "notes.txt").touch()
    reals = tmp_path / "reals"
    shutil.copytree(fakes, reals)
    (reals / "grid.png").unlink()
    shutil.copy(reals / "seed0001.png", reals / "again.png")
    flags = [f"--fakes={fakes}", f"--data={reals}", f"--detector={detector_path}"]
    result = run(*flags, "--metrics=kid6_full,fid8_full")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        "Note: kid6_full is not above 0 by more than its standard error: no difference was measured",
        "Note: 2 other files of --fakes skipped (1 .txt, 1 grid of generate.py)",
        f"Note: {reals}: 1 of the 9 images repeat another one pixel by pixel, such as 'seed0001.png' ('again.png'); "
        "they weigh double in training, and shift KID and the measures of copies",
    ]
    assert (
        "--fakes holds 8 images; no metric uses more than the first 6, by name"
        in run(*flags, "--metrics=kid6_full").stderr
    )
    assert run(*flags, "--metrics=kid9_full").exit_code == 2  # the grid is none of them
    for count in (6, 8):
        same = run(f"--fakes={fakes}", f"--data={fakes}", f"--detector={detector_path}", f"--metrics=fid{count}_full")
        assert json.loads(same.stdout)["results"][f"fid{count}_full"] >= 0


def test_a_reference_other_than_the_training_images(images_path: Path, detector_path: Path, tmp_path: Path) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for k in range(20):
        (train / f"{k:02d}.png").write_bytes((images_path / f"{k:02d}.png").read_bytes())
    flags = [f"--fakes={train}", f"--data={train}", f"--reference={images_path}", f"--detector={detector_path}"]
    line = json.loads(run(*flags, "--metrics=mem20").stdout)
    assert (line["dataset"], line["train_dataset"], line["num_real"]) == (images_path.name, "train", 50)
    assert line["results"]["mem20_held_out"] == 30
    assert line["results"]["mem20_share"] == 1


def test_two_processes_give_the_figures_of_one(
    snapshot: Path, images_path: Path, detector_path: Path, tmp_path: Path
) -> None:
    """At batch 8: 3 batches of fakes, 7 of reals: the last turn of both is not full."""
    flags = [f"--network={snapshot}", f"--data={images_path}", f"--detector={detector_path}", "--device=cpu"]
    flags += ["--metrics=kid20_full,fid20_full,pr20_full,is20,mem20", "--batch=8"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    shared = subprocess.run(
        [*launcher, str(ROOT / "evaluate.py"), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "KD_CACHE": str(tmp_path)},
    )
    assert shared.returncode == 0, shared.stderr
    alone = run(*flags)
    for one, two in zip(alone.stdout.splitlines(), shared.stdout.splitlines(), strict=True):
        results = json.loads(one)["results"]
        assert json.loads(two)["results"] == pytest.approx(results, rel=1e-6, abs=1e-9)


def test_a_truncated_or_foreign_snapshot(
    snapshot: Path, images_path: Path, detector_path: Path, tmp_path: Path
) -> None:
    content = snapshot.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("cut.safetensors", "text.safetensors"):
        result = run(f"--network={tmp_path / name}", f"--data={images_path}", f"--detector={detector_path}")
        assert result.exit_code == 2
        assert f"{name}' cannot be read as a snapshot" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    other = run(f"--network={detector_path}", f"--data={images_path}", f"--detector={detector_path}")
    assert other.exit_code == 2
    assert "cannot be read as a snapshot" in other.stderr


def test_people_read_figures_that_compare_together(images_path: Path, detector_path: Path) -> None:
    detector, dataset = load_detector(detector_path), ImageDataset(images_path)
    results = measure(ImageFolder(dataset), Reals(dataset), detector, parse_metrics("fid50_full,kid40_full,kid50_full"))
    conditions, fid, kid, others, less = evaluate._table(results).splitlines()
    assert "50 fakes and 50 reals" in conditions
    assert fid.startswith("    fid50_full ")
    assert kid.startswith("    kid50_full ")
    assert "40 fakes" in others
    assert less.startswith("    kid40_full ")


def test_the_nearest_training_images(images_path: Path, detector_path: Path, tmp_path: Path) -> None:
    """Fakes that are two training images and one inverted one."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name, source in {"a.png": "07.png", "b.png": "33.png", "c.png": "33.png"}.items():
        pixels = np.asarray(Image.open(images_path / source))
        Image.fromarray(255 - pixels if name == "c.png" else pixels).save(fakes / name)
    flags = [f"--fakes={fakes}", f"--data={images_path}", f"--detector={detector_path}", "--metrics=fid3_full"]
    result = run(*flags, f"--nearest={tmp_path / 'out'}")
    assert result.exit_code == 0, result.output
    header, first, second, third = (tmp_path / "out" / "nearest.csv").read_text().splitlines()
    assert header == "fake,training_image,distance"
    assert first == "0,07.png,0"
    assert second == "1,33.png,0"
    assert float(third.split(",")[2]) > 0.01
    picture = np.asarray(Image.open(tmp_path / "out" / "nearest.png"))
    assert (picture[:8, :16] == picture[8:16, :16]).all()
    assert {bytes(picture[:8, column : column + 8].tobytes()) for column in (0, 8)} == {
        np.asarray(Image.open(images_path / name)).tobytes() for name in ("07.png", "33.png")
    }
    refused = run(*flags, f"--nearest={images_path / '07.png'}")
    assert refused.exit_code == 2
    assert "--nearest: " in refused.stderr


def test_what_a_run_held_out_was_not_trained_on(
    snapshot: Path, images_path: Path, detector_path: Path, tmp_path: Path
) -> None:
    """By the config.json beside the snapshot; where it is of other images, all of --data were trained on."""
    network = shutil.copy(snapshot, tmp_path)
    flags = [f"--network={network}", f"--data={images_path}", f"--detector={detector_path}", "--metrics=mem20"]
    found = {}
    for data, subset in ((images_path, None), (images_path, 10), (detector_path, None)):
        config = {"data": str(data), "holdout": 5, "subset": subset, "seed": 3}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (line,) = run(*flags).stdout.splitlines()
        found[data, subset] = json.loads(line)
    assert [line["results"]["mem20_held_out"] for line in found.values()] == [5, 40, 0]
    assert {line["num_real"] for line in found.values()} == {50}
    held_out = ImageDataset(images_path, holdout=5, held_out=True, seed=3)
    train = ImageDataset(images_path, holdout=5, seed=3)
    assert not held_out.isin(train).any()
    G = evaluate.load_snapshot(snapshot, torch.device("cpu")).G_ema
    (own,) = measure(
        evaluate.GeneratedImages(G, train, seed=0, device=torch.device("cpu")),
        Reals(ImageDataset(images_path), train),
        load_detector(str(detector_path), torch.device("cpu")),
        parse_metrics("mem20"),
    )
    assert found[images_path, None]["results"] == own.results


def test_a_teacher_measures_the_demo_set() -> None:
    """Fresh drawings are as good as the reference; copies of the training images are told."""
    flags = ["--data=demo", "--reference=demo:300@1", "--detector=demo"]
    fresh = run(*flags, "--fakes=demo:300@2", "--metrics=attr300,cmmd300_full,mem300")
    assert fresh.exit_code == 0, fresh.output
    attributes, cmmd, mem = (json.loads(line)["results"] for line in fresh.stdout.splitlines())
    assert attributes["attr300_coverage"] == pytest.approx(1, abs=0.1)
    assert attributes["attr300_kinds"] == pytest.approx(8, abs=0.4)
    assert abs(cmmd["cmmd300_full"]) < 1
    assert mem["mem300_auc"] == pytest.approx(0.5, abs=0.07)
    assert mem["mem300_held_out"] == 300
    copies = json.loads(run(*flags, "--fakes=demo", "--metrics=mem100").stdout)["results"]
    assert (copies["mem100_auc"], copies["mem100_share"]) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--network=none.safetensors", "--network: 'none.safetensors' does not exist"),
        ("--data=none.zip", "--data: 'none.zip' is neither an existing zip or folder nor a known set"),
        ("--detector=none.pt", "--detector: 'none.pt' does not exist"),
        ("--metrics=fid5k", "--metrics: unknown metric 'fid5k'; nearest: 'fid5k_full'"),
        ("--resolution=16", "has images of 16 pixels, the network makes 8; give --resolution=8"),
        ("--detector=incepton", "--detector: 'incepton' does not exist; nearest: 'inception'"),
        ("--detector=demoo", "nearest: 'demo'"),
        ("--metrics=attr9", "--metrics: attr9 needs the demo teacher; give --detector=demo"),
        ("--metrics=pr50k33_full", "--metrics: unknown metric 'pr50k33_full'; nearest: 'pr50k3_full'"),
        ("--metrics=kid50k3_full", "--metrics: unknown metric 'kid50k3_full'"),
        ("--reference=none", "--reference: 'none' is neither"),
        ("--fakes=none", "give either --network=SNAPSHOT or --fakes=DIR"),
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
