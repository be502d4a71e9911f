"""The launcher in real checkouts: `python -m pytest -m upstream tests/hosts`, with these variables naming them:

    KD_STYLEGAN2_ADA   NVlabs/stylegan2-ada-pytorch at d72cc7d
    KD_DIFFAUGMENT     DiffAugment-stylegan2-pytorch in mit-han-lab/data-efficient-gans at 0b63395
    KD_STYLEGAN3       NVlabs/stylegan3 at c233a91
    KD_PROJECTED_GAN   autonomousvision/projected-gan at e1c246b; its backbone gets random weights here

They need requests, psutil and scipy, the last one timm==0.5.4 and dill too; a checkout that is not named is skipped.
About a minute each.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import kd_plugin
from kd_plugin.config.schema import to_dict
from kd_plugin.hosts.checkouts import without_added
from kd_plugin.hosts.launch import prepare
from kd_plugin.hosts.loss import make
from tests.hosts.absent import provide_packages
from tests.hosts.shared import hashed, write_images
from tests.hosts.test_launcher import call, isolated
from tests.hosts.test_patch import PATCH, as_program, patch

pytestmark = pytest.mark.upstream

THIRD = ["--cfg=stylegan3-t", "--gpus=1", "--batch=4", "--gamma=2"]
PROJECTED = ["--cfg=stylegan2", "--gpus=1", "--batch=4"]
NAMED = {"KD_STYLEGAN2_ADA": [], "KD_DIFFAUGMENT": [], "KD_STYLEGAN3": THIRD, "KD_PROJECTED_GAN": PROJECTED}


@pytest.fixture(scope="module", params=NAMED)
def checkout(request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    if request.param not in os.environ:
        pytest.skip(f"{request.param} names no checkout")
    return Path(os.environ[request.param]), NAMED[request.param]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "100-shot-obama.zip"
    write_images(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    provide_packages()


def rehearse(checkout: tuple[Path, list[str]], out: Path, images: Path, *flags: str) -> tuple[str, Path]:
    before = set(out.iterdir()) if out.exists() else set()
    own = ("--rehearse", f"--keep={out}")
    done = call(checkout[0], "--outdir=unused", f"--data={images}", *checkout[1], *flags, own=own)
    assert done.returncode == 0, done.output
    (run_dir,) = set(out.iterdir()) - before
    return done.output, run_dir


def hash_of(run_dir: Path, repo: Path) -> str:
    """Of the weights in the snapshot, which is read where kd_plugin cannot be imported."""
    done = isolated(print_hash, run_dir, repo)
    assert done.returncode == 0, done.output
    return done.output.split()[-1]


def print_hash(run_dir: Path, repo: Path) -> None:
    prepare(repo)
    for name in list(sys.modules):
        if name.startswith("kd_plugin"):
            sys.modules[name] = None  # type: ignore[assignment]
    legacy = importlib.import_module("legacy")
    (snapshot,) = run_dir.glob("*.pkl")
    with open(snapshot, "rb") as file:
        data = legacy.load_network_pkl(file)
    print(hashed(data[name] for name in ("G", "D", "G_ema")))


def test_a_run_weight_0_and_resume(checkout: tuple[Path, list[str]], images: Path, tmp_path: Path) -> None:
    output, taught = rehearse(checkout, tmp_path / "taught", images, "--kd=demo")
    assert "stats.jsonl has Loss/KD/" in output
    assert "KD/explained/agkd" in output
    _, plain = rehearse(checkout, tmp_path / "plain", images, "--kd=none")
    off = ("--kd=demo", "--kd-agkd=0", "--kd-cgkd=0", "--kd-match=0", "--kd-critic=0")
    _, zero = rehearse(checkout, tmp_path / "zero", images, *off)
    hashes = [hash_of(run_dir, checkout[0]) for run_dir in (taught, plain, zero)]
    assert hashes[1] == hashes[2] != hashes[0]
    (snapshot,) = taught.glob("*.pkl")
    output, _ = rehearse(checkout, tmp_path / "again", images, "--kd=demo", f"--resume={snapshot}")
    assert "the distillation continues from" in output


def test_the_gradients_are_those_of_the_joint_form(checkout: tuple[Path, list[str]], tmp_path: Path) -> None:
    done = isolated(compare_gradients, checkout[0])
    assert done.returncode == 0, done.output
    print(done.output)


def test_the_patch(checkout: tuple[Path, list[str]], images: Path, tmp_path: Path) -> None:
    repos = [tmp_path / name for name in ("plain", "tool", "git")]
    for repo in repos:
        shutil.copytree(checkout[0], repo, ignore=shutil.ignore_patterns(".git"))
    plain, tool, git = repos
    applied = ["git", "apply", "--unidiff-zero", f"--directory={git.name}", str(PATCH)]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(applied, cwd=tmp_path, check=True)
    assert " is added" in patch(tool).output
    by_tool, by_git, before = ((repo / "train.py").read_bytes() for repo in (tool, git, plain))
    assert without_added(by_tool) == without_added(by_git) == before != by_git
    assert (by_tool == by_git) or checkout[0].name == "projected-gan"  # there git adds it one line further down
    flags = ["--outdir=unused", f"--data={images}", *checkout[1], "--kd=demo", "--dry-run"]
    done = isolated(as_program, tool, tuple(flags))
    assert done.returncode == 0, done.output
    assert "kd_plugin.hosts.loss.make" in done.output
    rehearse((tool, checkout[1]), tmp_path / "runs", images, "--kd=demo")
    patch(tool, "--reverse")
    assert (tool / "train.py").read_bytes() == (plain / "train.py").read_bytes()


def networks(repo: Path) -> tuple[Any, dict[str, Any], str, dict[str, Any]]:
    """D, what else the loss takes, the name of its class, and what else accumulate_gradients takes."""
    sizes: dict[str, Any] = {"c_dim": 0, "img_resolution": 32, "img_channels": 3}
    narrow = {"channel_base": 512, "channel_max": 32, "num_fp16_res": 0}
    if (repo / "pg_modules").exists():
        G = importlib.import_module("pg_modules.networks_stylegan2").Generator(z_dim=8, w_dim=8, **sizes, **narrow)
        backbone = {"cout": 64, "expand": True, "num_discs": 4, "separable": True}
        D = importlib.import_module("pg_modules.discriminator").ProjectedDiscriminator(False, backbone_kwargs=backbone)
        D.eval()  # its spectral norms change with every call otherwise
        return D, {"G": G.requires_grad_(False), "G_ema": G}, "ProjectedGANLoss", {"cur_nimg": 0}
    third = (repo / "training/networks_stylegan2.py").exists()
    module = importlib.import_module("training.networks_stylegan2" if third else "training.networks")
    G = module.Generator(z_dim=8, w_dim=8, **sizes, **(narrow if third else {"synthesis_kwargs": narrow}))
    D = module.Discriminator(**sizes, **narrow)
    G.requires_grad_(False)
    parts = {"G": G} if third else {"G_mapping": G.mapping, "G_synthesis": G.synthesis}
    return D, parts, "StyleGAN2Loss", {"cur_nimg": 0} if third else {"sync": True}


def compare_gradients(repo: Path) -> None:
    """One step of D, carried by the official loss's two backward passes, and added to one loss."""
    prepare(repo)
    torch.manual_seed(0)
    D, parts, name, others = networks(repo)
    D.requires_grad_(True)
    config = kd_plugin.KDConfig(teacher="demo", balance=0.0, norm="none", centre=False)
    kd = {"config": to_dict(config), "prompts": ["a red circle", "a blue square"], "imports": [], "seed": 0,
          "shape": [[3, 32, 32], 0], "resume": None}  # fmt: skip
    base: Any = getattr(importlib.import_module("training.loss"), name)
    seen: list[torch.Tensor] = []
    run_D = base.run_D
    base.run_D = lambda self, img, *rest, **others: seen.append(img) or run_D(self, img, *rest, **others)

    def gradients(loss: Any) -> list[torch.Tensor]:
        D.zero_grad()
        torch.manual_seed(1)
        real, z, c = torch.rand(4, 3, 32, 32) * 2 - 1, torch.randn(4, 8), torch.zeros(4, 0)
        loss.accumulate_gradients(phase="Dmain", real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, **others)
        return [p.grad.clone() for p in D.parameters() if p.grad is not None]

    carried = make(f"training.loss.{name}", kd, device=torch.device("cpu"), D=D, **parts)
    gradients(carried)  # the first role of a run has no other one to meet
    found = gradients(carried)
    heads = [p.grad.clone() for p in carried._kd.parameters()]
    seen.clear()
    plain = gradients(base(device=torch.device("cpu"), D=D, **parts))
    fake, real = seen
    layers = carried._layers(config, *kd["shape"])
    joint = kd_plugin.attach(D, config=config, layer=layers, prompts=kd["prompts"], seed=0)
    for role, images in (("real", real), ("fake", fake)):
        with joint.capture(role):
            D(images.detach(), torch.zeros(4, 0))
    joint().total.backward()
    expected = [p.grad for p in D.parameters() if p.grad is not None]
    pairs = [*zip(found, expected, strict=True), *zip(heads, [p.grad for p in joint.parameters()], strict=True)]
    worst = max(float((a - b).norm() / b.norm()) for a, b in pairs if b is not None and b.norm() > 0)
    added = max(float((a - b).norm() / b.norm()) for a, b in zip(found, plain, strict=True))
    print(f"largest relative difference {worst:.2g}; distillation changes the gradient by {added:.2g}")
    assert worst < 1e-4
    assert added > (20 * worst if name == "ProjectedGANLoss" else 0.01)  # its own gradient is far larger
