"""docs/extending.md, followed from outside the package: its files are written, its commands run."""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from pathlib import Path

import pytest

import generate
import train
import training.loop
from tests.forked import Forked

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

SETUP = """
import torch, kd_plugin
from torch import nn
from kd_plugin import load_teacher

torch.manual_seed(0)
class Disc(nn.Module):
    def __init__(self):
        super().__init__()
        self.b4 = nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3, stride=4), "fc": nn.Linear(8, 16), "out": nn.Linear(16, 1)})
    def forward(self, x):
        return self.b4["out"](self.b4["fc"](self.b4["conv"](x).mean(dim=(2, 3))).relu())

D, teacher = Disc(), load_teacher("demo")
real, fake = torch.rand(4, 3, 32, 32) * 2 - 1, (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
opt_d = torch.optim.Adam(D.parameters())
loss_g = -D(fake).mean()
"""


def blocks(section: str) -> tuple[dict[str, str], list[str], list[list[str]]]:
    """Of a section: files by name, other Python blocks, and command lines."""
    text = re.split(r"^## ", PAGE, flags=re.M)
    body = next(part for part in text if part.startswith(section))
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", body, flags=re.S | re.M)
    python = [block for language, block in fenced if language == "python"]
    files = {match[1]: block for block in python if (match := re.match(r"# (\w+\.py)\n", block))}
    commands = [line.split() for language, block in fenced if not language for line in block.splitlines()]
    return files, [block for block in python if not re.match(r"# \w+\.py\n", block)], commands


def execute(folder: Path, code: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    exec(code, {"__name__": "__main__"})


def run_python(folder: Path, code: str) -> str:
    process = Forked(execute, folder, code, out=folder / "output.txt")
    assert process.wait() == 0, process.output
    return process.output


def train_in(folder: Path, flags: list[str]) -> None:
    os.chdir(folder)
    training.loop.grid_shape = lambda resolution: (1, 4)  # as in tests/host: pictures take longer than the run
    train.main(flags, prog_name="train.py")


def run_train(folder: Path, command: list[str], *more: str, widths: str = "--cbase=64 --cmax=8") -> Forked:
    assert command[:2] == ["python", "train.py"]
    small = f"--data=demo --cfg=demo {widths} --batch=4 --kimg=0.008 --tick=0.004 --snap=1 --holdout=4"
    flags = [*small.split(), f"--outdir={folder / 'runs'}", *command[2:], *more]
    process = Forked(train_in, folder, flags, out=folder / f"output-{uuid.uuid4().hex}.txt")
    process.wait()
    return process


def generate_in(folder: Path, flags: list[str]) -> None:
    os.chdir(folder)
    generate.main(flags, prog_name="generate.py")


def run_generate(folder: Path, *flags: str) -> Forked:
    process = Forked(generate_in, folder, list(flags), out=folder / f"output-{uuid.uuid4().hex}.txt")
    process.wait()
    return process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for section in ("Add a term", "Add a distance", "Add a teacher", "Add an architecture"):
        for name, content in blocks(section)[0].items():
            (tmp_path / name).write_text(content)
    return tmp_path


def test_a_term_in_a_users_own_loop(folder: Path) -> None:
    _, (usage,), _ = blocks("Add a term")
    check = """
expected = (teacher.embed_images(fake).mean(0) - teacher.embed_images(real).mean(0)).abs().mean()
plain = kd.for_generator(fake, real)
torch.testing.assert_close(plain.total, expected)
assert list(plain.terms) == ["moments"]
plain.total.backward()
assert fake.grad.abs().sum() > 0
try:
    kd_plugin.attach(D, layer="b4.fc", teacher=teacher, terms={"moment": 1.0})
except kd_plugin.KDError as error:
    print(error)
"""
    assert "unknown term 'moment'; nearest: 'moments'" in run_python(folder, SETUP + usage + check)


def test_a_term_on_the_command_line(folder: Path) -> None:
    _, _, (command,) = blocks("Add a term")
    done = run_train(folder, command)
    assert done.returncode == 0, done.output
    assert re.search(r"tick 1 .* moments [0-9.]+ ", done.output)
    run_dir = next((folder / "runs").iterdir())
    config = json.loads((run_dir / "config.json").read_text())["kd"]
    assert (config["moments"], config["moments_power"]) == (0.5, 1.0)
    assert "Loss/KD/moments" in json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    shown = run_train(folder, command, "--help").output
    assert "--kd-moments-power X" in shown
    assert "Power of the difference of the means" in shown
    without = run_train(folder, ["python", "train.py", "--kd=demo", "--kd-moments=0.5"])
    assert without.returncode == 2
    assert "No such option" in without.output
    missing = run_train(folder, ["python", "train.py", "--kd-import=nowhere.py"])
    assert missing.returncode == 2
    assert "--kd-import=nowhere.py: importing 'nowhere.py' failed" in missing.output
    assert "Traceback" not in missing.output


def test_a_comparison_is_explained(folder: Path) -> None:
    usage = """
import my_comparison
kd = kd_plugin.attach(D, layer="b4.fc", teacher=teacher, terms={"directions": 1.0}, balance=0)
with kd.capture("real"): D(real)
with kd.capture("fake"): D(fake.detach())
total = kd().total
assert total > 0
assert set(kd.explained()) == {"total", "directions"}
assert kd.config.terms["directions"].distance == "l1"
"""
    run_python(folder, SETUP + usage)


def test_distances_in_a_users_own_loop(folder: Path) -> None:
    _, (usage,), _ = blocks("Add a distance")
    check = """
kd = kd_plugin.attach(D, layer="b4.fc", teacher=teacher, terms={"match": 1}, match_on="embedding",
                      match_pull=0, match_distance="means")
expected = (teacher.embed_images(fake).mean(0) - teacher.embed_images(real).mean(0)).square().sum()
torch.testing.assert_close(kd.for_generator(fake, real).total, expected)
try:
    kd_plugin.attach(D, layer="b4.fc", teacher=teacher, match_distance="mean")
except kd_plugin.KDError as error:
    print(error)
"""
    shown = run_python(folder, SETUP + usage + check)
    assert "match_distance='mean' is unknown; choose one of energy, drift, means" in shown


def test_distances_on_the_command_line(folder: Path) -> None:
    _, _, (command,) = blocks("Add a distance")
    done = run_train(folder, command)
    assert done.returncode == 0, done.output
    config = json.loads((next((folder / "runs").iterdir()) / "config.json").read_text())["kd"]
    assert (config["match_distance"], config["distance"]) == ("means", "huber")
    without = run_train(folder, ["python", "train.py", "--kd=demo", "--kd-match-distance=means"])
    assert without.returncode == 2
    assert "'means' is not one of 'energy', 'drift'" in without.output


def test_a_teacher(folder: Path) -> None:
    _, (usage,), (command,) = blocks("Add a teacher")
    _, (host,), _ = blocks("Add a host")
    run_python(folder, SETUP + usage.replace('terms={"agkd": 1.0}', 'terms={"agkd": 1.0, "match": 1.0}') + host)
    done = run_train(folder, command)
    assert done.returncode == 0, done.output
    assert "agkd" in done.output


def test_a_term_with_its_own_optimiser(tmp_path: Path) -> None:
    """A small discriminator on the teacher's embeddings: trained in every step of G, kept in the state."""
    code = """
@kd_plugin.TERMS.register("opponent")
class Opponent(kd_plugin.Term):
    sides, needs = ("G",), kd_plugin.Needs(real_images=True)
    def __init__(self, options, embed_dim):
        super().__init__(options, embed_dim)
        self.score = nn.Linear(embed_dim, 1)
    def generator_loss(self, step):
        return -self.score(step.fake).mean()
    def make_optimizer(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)
    def training_loss(self, step):
        assert not step.fake.requires_grad
        fake, real = self.score(step.fake), self.score(step.real)
        return nn.functional.softplus(fake).mean() + nn.functional.softplus(-real).mean()

def attach():
    torch.manual_seed(1)
    return kd_plugin.attach(D, layer="b4.fc", teacher=teacher, terms={"opponent": 1.0})

kd, again = attach(), attach()
assert [name for name, _ in kd.named_parameters()] == ["head.weight", "head.bias"]
before = kd.terms["opponent"].score.weight.clone()
losses = [float(kd.for_generator(fake, real).total.detach()) for _ in range(20)]
assert losses[-1] > losses[0], losses  # the opponent learns to tell fakes
assert not torch.equal(before, kd.terms["opponent"].score.weight)
kd.for_generator(fake, real).total.backward()
assert kd.terms["opponent"].score.weight.grad is None
assert fake.grad.abs().sum() > 0
again.load_state_dict(kd.state_dict())
totals = [float(k.for_generator(fake, real).total.detach()) for k in (kd, again)]
assert totals[0] == totals[1], totals

@kd_plugin.TERMS.register("forgotten")
class Forgotten(Opponent):
    def make_optimizer(self):
        return None
try:
    kd_plugin.attach(D, layer="b4.fc", teacher=teacher, terms={"forgotten": 1.0})
except kd_plugin.KDError as error:
    print(error)
"""
    assert "term 'forgotten' acts on G and has parameters" in run_python(tmp_path, SETUP + code)


def test_a_term_on_intermediate_features(tmp_path: Path) -> None:
    code = """
@kd_plugin.TERMS.register("layers")
class Layers(kd_plugin.Term):
    sides, needs = ("G",), kd_plugin.Needs(real_images=True, stages=True)
    def generator_loss(self, step):
        return sum((f.mean((0, 2, 3)) - r.mean((0, 2, 3))).square().sum()
                   for f, r in zip(step.fake_stages.values(), step.real_stages.values(), strict=True))

class Staged:
    name, embed_dim, fingerprint, vocabulary = "staged", 48, "0" * 64, ()
    def embed_texts(self, texts): raise ValueError
    stage_names, good = ("quarter", "small"), True
    def embed_images(self, images): return self.embed_with_stages(images, ())[0]
    def embed_with_stages(self, images, names):
        small = nn.functional.adaptive_avg_pool2d(images, 4)
        made = {"quarter": nn.functional.avg_pool2d(images, 4), "small": small if self.good else small[0]}
        return small.flatten(1), [made[name] for name in names]

staged = Staged()
kd = kd_plugin.attach(D, layer="b4.fc", teacher=staged, terms={"layers": 1.0})
kd.for_generator(fake, real).total.backward()
assert fake.grad.abs().sum() > 0
staged.good = False
without = Staged()
without.stage_names = ()
for give in (staged, without):
    try:
        if give is staged: kd.for_generator(fake, real)
        else: kd_plugin.attach(D, layer="b4.fc", teacher=give, terms={"layers": 1.0})
    except kd_plugin.TeacherError as error:
        print(error)
"""
    shown = run_python(tmp_path, SETUP + code)
    assert "teacher 'staged' gave small in the shape [3, 4, 4]; expected [4, C, h, w]" in shown
    assert "layers=1.0 needs intermediate features, but teacher 'staged' has no stages" in shown


def test_an_architecture(folder: Path) -> None:
    """Trains, is distilled, is continued, and its snapshot makes images."""
    _, _, (command, _) = blocks("Add an architecture")
    done = run_train(folder, command, widths="--cmax=8")
    assert done.returncode == 0, done.output
    assert re.search(r"tick 1 .* agkd [0-9.]+ ", done.output)
    assert "student fc" in done.output
    (run_dir,) = (folder / "runs").iterdir()
    continued = run_train(folder, command, "--kimg=0.012", "--resume=latest", widths="--cmax=8")
    assert continued.returncode == 0, continued.output
    assert (run_dir / "network-snapshot-000000.012.safetensors").is_file()
    refused = run_train(folder, command, "--w-dim=8", widths="--cmax=8 --cbase=64")
    assert refused.returncode == 2
    assert "--cbase has no effect in this run; give --model=stylegan2" in refused.output
    snapshot = f"--network={run_dir}/network-snapshot-000000.012.safetensors"
    code = "--kd-import=my_gan.py"
    made = run_generate(folder, snapshot, code, "--seeds=0-3")
    assert made.returncode == 0, made.output
    assert len(list((folder / "out").glob("seed*.png"))) == 4
    alone = run_generate(folder, snapshot, "--seeds=0-3")
    assert alone.returncode == 2
    assert "'tiny', is none of this trainer's (stylegan2, biggan); import the code that" in alone.output
    missing = run_generate(folder, snapshot, "--kd-import=my_gam.py", "--seeds=0")
    assert missing.returncode == 2
    assert "--kd-import=my_gam.py: importing" in missing.output
    unknown = run_train(folder, ["python", "train.py", "--model=tiny"], widths="--cmax=8")
    assert "--model: 'tiny' is unknown" in unknown.output
