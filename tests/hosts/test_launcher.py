"""Official checkouts are launched with distillation; here small stand-ins, and the real ones where they are named."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_plugin.hosts.__main__ import main
from tests.forked import Forked
from tests.hosts import stand_in


@dataclass(frozen=True)
class Done:
    returncode: int
    output: str


def call(repo: Path, *arguments: str, own: tuple[str, ...] = ("--force",)) -> Done:
    """`python -m kd_plugin.hosts`, in a process of its own."""
    return isolated(main, [f"--repo={repo}", *own, "--", *arguments])


def isolated(function: Callable[..., Any], *arguments: Any) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        process = Forked(without_our_packages, function, arguments, out=Path(folder) / "output.txt")
        return Done(process.wait(), process.output)


def without_our_packages(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Checkouts have packages of the same names."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("dnnlib", "torch_utils", "training", "train"):
            del sys.modules[name]
    multiprocessing.set_start_method(None, force=True)  # they set it themselves, once
    function(*arguments)


@dataclass
class Rehearsed:
    """A checkout, and rehearsals of it."""

    repo: Path
    out: Path

    def run(self, *flags: str, teacher: str = "demo") -> tuple[str, Path]:
        """The output, and the folder of the run."""
        before = set(self.out.iterdir()) if self.out.exists() else set()
        own = ("--force", "--rehearse", f"--keep={self.out}")
        done = call(self.repo, "--outdir=unused", "--data=images.zip", f"--kd={teacher}", *flags, own=own)
        assert done.returncode == 0, done.output
        (run_dir,) = set(self.out.iterdir()) - before
        return done.output, run_dir

    @cached_property
    def taught(self) -> tuple[str, Path]:
        return self.run("--kd-agkd=2", "--kd-match=1")

    @cached_property
    def plain(self) -> Path:
        return self.run(teacher="none")[1]


@pytest.fixture(scope="module", params=["ada", "third"])
def rehearsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    folder = tmp_path_factory.mktemp(request.param)
    return Rehearsed(stand_in.write(folder / "checkout", request.param), folder / "runs")


def weights(run_dir: Path, repo: Path) -> list[torch.Tensor]:
    """Of D and G, read where kd_plugin cannot be imported."""
    done = isolated(read_weights, run_dir, repo)
    assert done.returncode == 0, done.output
    loaded: list[torch.Tensor] = torch.load(run_dir / "weights.pt")
    return loaded


def read_weights(run_dir: Path, repo: Path) -> None:
    for name in list(sys.modules):
        if name.startswith("kd_plugin"):
            sys.modules[name] = None  # type: ignore[assignment]
    sys.path.insert(0, str(repo))
    data = pickle.loads((run_dir / "network-snapshot-000000.pkl").read_bytes())
    torch.save([tensor for name in "DG" for tensor in data[name].state_dict().values()], run_dir / "weights.pt")


def test_a_rehearsal_distils_and_touches_nothing(rehearsed: Rehearsed) -> None:
    files = {path: path.read_bytes() for path in rehearsed.repo.rglob("*.py")}
    output, run_dir = rehearsed.taught
    assert "16 templates over 'obama'" in output
    assert "the rehearsal went through; it wrote network-snapshot-000000.kd.pt, network-snapshot" in output
    stats = json.loads((run_dir / "stats.jsonl").read_text())
    assert {"Loss/KD/agkd", "Loss/KD/cgkd", "Loss/KD/match", "KD/explained/agkd", "Loss/D/loss"} <= stats.keys()
    assert stats["Loss/KD/agkd"]["mean"] > 0
    assert run_dir.name.endswith("-kd-demo")
    assert {path: path.read_bytes() for path in rehearsed.repo.rglob("*.py")} == files
    taught, untaught = weights(run_dir, rehearsed.repo), weights(rehearsed.plain, rehearsed.repo)
    assert [t.shape for t in taught] == [t.shape for t in untaught]
    assert not torch.equal(taught[0], untaught[0])
    assert b"kd_plugin" not in (run_dir / "network-snapshot-000000.pkl").read_bytes()


def test_at_weight_0_the_official_code_itself_runs(rehearsed: Rehearsed) -> None:
    output, run_dir = rehearsed.run("--kd-agkd=0", "--kd-cgkd=0", "--kd-match=0", "--kd-critic=0")
    assert "nothing is distilled; the official code runs as it is" in output
    assert sorted(path.name for path in run_dir.iterdir()) == ["network-snapshot-000000.pkl", "stats.jsonl"]
    pairs = zip(weights(run_dir, rehearsed.repo), weights(rehearsed.plain, rehearsed.repo), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_heads_are_trained_and_go_on_with_resume(rehearsed: Rehearsed) -> None:
    _, run_dir = rehearsed.taught
    state, snapshot = (run_dir / f"network-snapshot-000000.{ending}" for ending in ("kd.pt", "pkl"))
    output, second = rehearsed.run(f"--resume={snapshot}")
    assert f"the distillation continues from {state}" in output
    saved, after = (torch.load(path, weights_only=True) for path in (state, second / state.name))
    calls = [kept["_extra_state"]["balances"]["D"]["calls"] for kept in (saved, after)]
    assert calls == [2, 5]  # of 3 steps each, the first of all had nothing to compare generated images with
    shift = (after["head.weight"] - saved["head.weight"]).abs().max()
    assert 0 < shift < 0.05  # a few steps of Adam; new heads would be far away
    other = call(rehearsed.repo, "--outdir=x", "--data=x", "--kd=demo", f"--resume={snapshot}", "--kd-head=mlp",
                 own=("--force", "--rehearse"))  # fmt: skip
    assert other.returncode == 2
    assert "network-snapshot-000000.kd.pt: the distillation saved beside --resume cannot be used" in other.output


def projected(folder: Path) -> Path:
    """A D whose layers have other names and do not state their width; runs continue in their folder, and end with 3."""
    repo = stand_in.write(folder, "third")
    networks, loop, train = (repo / path for path in ("training/networks.py", "training/training_loop.py", "train.py"))
    text = networks.read_text().replace("b4", "trunk").replace("torch.nn.Linear(5, 6)", "Layer()")
    text += """
class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(5, 6)
    def forward(self, x): return self.inner(x)
"""
    networks.write_text(text)
    text = loop.read_text().replace("network-snapshot-000000.pkl", "network-snapshot.pkl")
    loop.write_text(text.replace("resume_pkl=None", "resume_pkl=None, restart_every=0"))
    text = (
        train.read_text()
        .replace("{runs:05d}", "00000")
        .replace("makedirs(c.run_dir)", "makedirs(c.run_dir, exist_ok=True)")
    )
    text = text.replace("    return c\n", "    c.restart_every = 1\n    return c\n")
    text = text.replace('temp_dir="")\n', 'temp_dir="")\n        raise SystemExit(3)\n')
    train.write_text(text)
    return repo


def test_other_layers_and_runs_that_continue_by_themselves(tmp_path: Path) -> None:
    repo = projected(tmp_path / "checkout")
    own = ("--force", "--rehearse", f"--keep={tmp_path / 'runs'}")
    arguments = ("--outdir=unused", "--data=images.zip", "--kd=demo")
    done = call(repo, *arguments, own=own)
    assert done.returncode == 0, done.output
    assert "Loss/KD/agkd" in done.output
    assert "D has no b4.fc; its layer 'trunk.fc' is distilled (--kd-layer)" in done.output
    state = tmp_path / "runs" / "00000-stylegan3-t-kd-demo" / "network-snapshot.kd.pt"
    saved = torch.load(state, weights_only=True)
    assert saved["head.weight"].shape[1] == 6  # trunk.fc, the layer before the logit
    done = call(repo, *arguments, "--kd-layer=trunk.fc", own=own)
    assert done.returncode == 0, done.output
    assert f"the distillation continues from {state}" in done.output
    saved = torch.load(state, weights_only=True)
    assert saved["_extra_state"]["balances"]["D"]["calls"] == 5


def test_options_are_shown_and_passed_on(rehearsed: Rehearsed) -> None:
    repo = rehearsed.repo
    shown = call(repo, "--help")
    assert shown.returncode == 0
    assert "--outdir" in shown.output
    assert "--kd-agkd" in shown.output
    dry = call(repo, "--outdir=x", "--data=x", "--kd=demo", "--kd-p=0.7", "--kd-variant=paper", "--dry-run")
    assert dry.returncode == 0, dry.output
    options = json.loads(next(line for line in dry.output.splitlines() if line.startswith("{")))
    loss = options["loss_kwargs"]
    assert loss["base"] == "training.loss.StyleGAN2Loss"
    assert loss["r1_gamma"] == 1.0
    assert (loss["kd"]["config"]["p"], loss["kd"]["config"]["balance"]) == (0.7, 0.0)
    assert "a photo of obama" in loss["kd"]["prompts"]
    assert options["G_opt_kwargs"]["betas"] == [0.0, 0.99]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--kd=dmeo",), "dmeo"),
        (("--kd-agkd=2",), "--kd-agkd: no teacher was given, so nothing would be distilled; give --kd"),
        (("--kd=demo", "--kd-layer=b4.fcc"), "--kd-layer=b4.fcc is not in the discriminator; nearest: 'b4.fc'"),
        (("--kd=demo", "--kd-agdk=2"), "No such option"),
        (("--kd=demo", "--kd-prompts=none.txt"), "--kd-prompts=none.txt cannot be read"),
    ],
)
def test_mistakes(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    repo = stand_in.write(tmp_path / "checkout", "ada")
    done = call(repo, "--outdir=x", "--data=x", *flags, own=("--force", "--rehearse"))
    assert done.returncode == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


def test_unknown_checkouts(tmp_path: Path) -> None:
    done = call(tmp_path, own=())
    assert done.returncode == 2
    assert "there is no train.py; give the folder of the checkout that holds it" in done.output
    repo = stand_in.write(tmp_path / "checkout", "ada")
    done = call(repo, own=())
    assert done.returncode == 2
    assert "it is none of the known checkouts: stylegan2-ada-pytorch (d72cc7d)" in done.output
    (repo / "train.py").write_text("print('another program')")
    done = call(repo)
    assert done.returncode == 2
    assert "has neither setup_training_loop_kwargs nor launch_training" in done.output
