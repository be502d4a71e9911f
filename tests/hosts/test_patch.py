"""One line is added to the train.py of a checkout, and removed again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kd_plugin.hosts import checkouts, patched
from kd_plugin.hosts.checkouts import ADDED
from kd_plugin.hosts.patch import main
from tests.hosts import stand_in
from tests.hosts.test_launcher import Done, call, isolated

PATCH = Path(__file__).parents[2] / "patches" / "train.patch"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return stand_in.write(tmp_path / "checkout", "ada")


def patch(repo: Path, *flags: str) -> Done:
    return isolated(main, [f"--repo={repo}", *flags])


def run(repo: Path, *flags: str) -> Done:
    """`python train.py`"""
    return isolated(as_program, repo, flags)


def as_program(repo: Path, flags: tuple[str, ...]) -> None:
    sys.path.insert(0, str(repo))
    sys.argv = ["train.py", *flags]
    path = repo / "train.py"
    exec(compile(path.read_text(), path, "exec"), {"__name__": "__main__", "__file__": str(path)})


def test_train_has_the_flags_then_and_not_before(repo: Path) -> None:
    arguments = ("--outdir=x", "--data=x", "--kd=demo", "--kd-p=0.7", "--dry-run")
    assert run(repo, *arguments).output == ""  # the stand-in starts nothing by itself
    assert patch(repo, "--force").returncode == 0
    done = run(repo, *arguments)
    assert done.returncode == 0, done.output
    options = json.loads(next(line for line in done.output.splitlines() if line.startswith("{")))
    assert options["loss_kwargs"]["kd"]["config"]["p"] == 0.7
    assert "(train.py differs, training/training_loop.py differs, training/loss.py differs)" in done.output
    mistake = run(repo, "--outdir=x", "--data=x", "--kd=dmeo")
    assert mistake.returncode == 2
    assert "Error: --kd=dmeo: unknown teacher" in mistake.output


def test_the_launcher_runs_a_patched_checkout(repo: Path) -> None:
    patch(repo, "--force")
    done = call(repo, "--outdir=x", "--data=x", "--kd=demo", "--dry-run")
    assert done.returncode == 0, done.output


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_nothing_else_changes_and_reverse_restores(repo: Path, ending: str) -> None:
    train = repo / "train.py"
    text = ('"""Trains."""' + train.read_text() + "# ü").replace("\n", ending)
    train.write_bytes(text.encode())
    train.chmod(0o755)
    before, hashed = train.read_bytes(), checkouts.file_hash(train)
    assert "can be patched" in patch(repo, "--force", "--check").output
    assert train.read_bytes() == before
    assert "train.py: line 2 is added" in patch(repo, "--force").output
    lines = train.read_bytes().split(ending.encode())
    assert lines.pop(1) == ADDED
    assert ending.encode().join(lines) == before
    assert checkouts.file_hash(train) == hashed
    assert "nothing to do, it is patched already" in patch(repo, "--force").output
    assert "would be removed" in patch(repo, "--reverse", "--check").output
    assert "is removed" in patch(repo, "--reverse").output
    assert train.read_bytes() == before
    assert train.stat().st_mode & 0o777 == 0o755
    assert "nothing to do, it is not patched" in patch(repo, "--reverse").output
    assert sorted(path.name for path in repo.iterdir() if path.is_file()) == ["train.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it is none of the known checkouts"),
        ("def launch_training(:", "train.py cannot be read as Python"),
        ("# launch_training\ndef launch_training(): ...\n" + ADDED.decode() + " edited", "train.py line 3 is not as a"),
        ("def launch_training(): ...\n" + 2 * (ADDED.decode() + "\n"), "train.py line 2 and 3 is not as a patch"),
    ],
)
def test_mistakes(repo: Path, text: str | None, message: str) -> None:
    if text is not None:
        (repo / "train.py").write_text(text)
    before = (repo / "train.py").read_bytes()
    done = patch(repo, *([] if text is None else ["--force"]))
    assert done.returncode == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert (repo / "train.py").read_bytes() == before


def test_a_process_for_one_of_several_gpus_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    mended: list[str] = []
    monkeypatch.setattr("kd_plugin.hosts.launch.prepare", lambda _repo: mended.append("all"))
    patched.extend("train", "train.py")  # imported by the launcher
    assert mended == []
    patched.extend("__mp_main__", "train.py")
    assert mended == ["all"]


def test_the_patch_file_adds_the_same_line_and_has_nothing_else() -> None:
    lines = PATCH.read_bytes().splitlines()
    assert lines == [b"--- a/train.py", b"+++ b/train.py", b"@@ -11,0 +12 @@", b"+" + ADDED]
