"""The README: its commands are understood, its ten lines run, its files exist, its numbers are measured."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
import torch
from PIL import Image
from torch import nn

import convert
import evaluate
import generate
import kd_plugin
import report
import train
from studies.figure import CONTROLS
from studies.results import DEFAULT, RESULTS, load_results

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, block in BLOCKS
    if kind != "python"
    for line in block.splitlines()
    if line.startswith(("python ", "make "))
]
SCRIPTS: dict[str, click.Command] = {
    "train.py": train.main,
    "generate.py": generate.main,
    "evaluate.py": evaluate.main,
    "report.py": report.main,
    "convert.py": convert.main,
}


def understood(script: click.Command, words: list[str]) -> None:
    """
    Raises:
        click.UsageError: a flag that does not exist, or does not take its value.
    """
    context = script.make_context(words[0], words[1:])
    if isinstance(script, click.Group):
        name, command, rest = script.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        command.make_context(name, rest)


def test_the_users_command_is_named() -> None:
    assert "python train.py --kd=clip --data=100-shot-obama.zip" in COMMANDS
    assert "`make test`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    """Every flag exists and takes its value; nothing is run."""
    program, *rest = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        understood(SCRIPTS[rest[0]], rest)


PAGE = (ROOT / "docs/generate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^python (.+)$", PAGE, re.MULTILINE))
def test_a_command_on_networks_is_understood(line: str) -> None:
    words = shlex.split(re.split(r" {3,}", line)[0])
    understood(SCRIPTS[words[0]], words)


def test_the_demo_is_the_command_that_the_trainer_names() -> None:
    """`make demo`, which the README gives, runs the line in the help of train.py."""
    assert "make demo" in COMMANDS
    recipe = re.search(r"^demo:.*\n\t\$\(PY\) (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert f"python {recipe[1]} " in (train.main.help or "")


def test_the_lines_for_ones_own_gan_run() -> None:
    (code,) = [block for kind, block in BLOCKS if kind == "python"]

    class D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b4 = nn.ModuleDict({"fc": nn.Linear(48, 16), "out": nn.Linear(16, 1)})

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
            logits: torch.Tensor = self.b4["out"](self.b4["fc"](features))
            return logits

    network = D()
    names = {
        "kd_plugin": kd_plugin,
        "D": network,
        "opt_d": torch.optim.Adam(network.parameters()),
        "augment": lambda images: images,
        "real": torch.rand(4, 3, 32, 32),
        "fake": torch.rand(4, 3, 32, 32, requires_grad=True),
        "your_loss": lambda real, fake: (fake - real).mean(),
        "your_loss_of_g": lambda fake: -fake.mean(),
    }
    with pytest.warns(UserWarning, match="prompts"):
        exec(code.replace('teacher="clip"', 'teacher="demo"'), names)  # the same lines, without the download
    assert code.count("\n") == 10
    names["loss_d"].backward()
    names["loss_g"].backward()
    assert network.b4["fc"].weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for group in names["opt_d"].param_groups for parameter in group["params"])


def test_files_that_are_named_exist() -> None:
    names = re.findall(r"\]\(([\w./-]+)\)", TEXT)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).is_file(), name


def test_numbers_are_those_of_the_study() -> None:
    """Means of KID in the text, from studies/results."""
    sets = {name: load_results(RESULTS / f"{name}.jsonl") for name in ("drawings", "cats", "dogs")}
    forms = ("none", DEFAULT, "all images")
    kid = {
        name: [f"{value.mean:.2f}" for form in forms if (value := part.mean_kid(form))] for name, part in sets.items()
    }
    text = " ".join(TEXT.split())
    assert "falls from {} to {} (trained on 5,000 drawings: {})".format(*kid["drawings"]) in text
    assert (
        "on cats from {} to {}, on golden retrievers from {} to {}.".format(*kid["cats"][:2], *kid["dogs"][:2]) in text
    )
    failed = max(sets["cats"].kid("none", seed) for seed in range(3))
    assert f"one of which failed on cats ({failed:.2f})" in text
    controls = {name: part.mean_kid(CONTROLS[DEFAULT]) for name, part in sets.items()}
    scrambled = {name: f"{value.mean:.2f}" for name, value in controls.items() if value}
    assert f"the default has {scrambled['cats']} on cats and {scrambled['dogs']} on retrievers" in text
    assert f"scrambled weights gain as much ({scrambled['drawings']})" in text


def test_numbers_have_a_leading_zero() -> None:
    """In every page."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "studies").rglob("*.md")]
    found = [
        f"{page.name}: {match[0]}"
        for page in pages
        for match in re.finditer(r"(?<![\w./`-])[-+±]?\.\d+\b", page.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_overview_is_drawn_by_its_script(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "overview.py"))
    script["draw"](tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_the_demos_picture_is_drawn_by_its_script(tmp_path: Path) -> None:
    """It takes the latest samples."""
    for name, colour in (("reals", "red"), ("fakes_init", "black"), ("fakes000010", "white"), ("fakes000020", "blue")):
        Image.new("RGB", (512, 256), colour).save(tmp_path / f"{name}.png")
    script = runpy.run_path(str(ROOT / "docs" / "demo.py"))
    script["draw"](tmp_path, tmp_path / "demo.png")
    with Image.open(tmp_path / "demo.png") as drawn, Image.open(ROOT / "docs" / "demo.png") as shown:
        assert drawn.size == shown.size
        assert drawn.getpixel((0, 0)) == (255, 0, 0)
        assert drawn.getpixel((drawn.width - 1, drawn.height - 1)) == (0, 0, 255)
