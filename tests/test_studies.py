"""The few-shot study: its statistics are the formulas, its generated pages are those of its results."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import options_of
from kd_plugin.errors import flag
from kd_plugin.functional import energy_distance
from studies import samples
from studies.few_shot import Run, main
from studies.figure import EVIDENCE, save_figure
from studies.kernels import laplace_discrepancy, means_and_deviations
from studies.results import CEILING, FORMS, LAST, NONE, Results, load_results
from studies.sliced_wasserstein import _blurred, laplacian_pyramid, sliced_wasserstein
from studies.tables import all_results, pages, table
from studies.train_judge import WIDTH, augmented, contrastive_loss, train
from training.drawings import draw
from training.metrics.detectors import load_detector


def row(form: str, seed: int, kid: float, **more: Any) -> dict[str, Any]:
    values = {"gap": 0.5, "explained": None, "explained_holdout": None, "grad_ratio": None, "mem": {"mem1k_auc": 0.4}}
    return {"form": form, "seed": seed, "kid": [9.0, *[kid] * LAST], **values, **more}


def results(folder: Path, *rows: dict[str, Any]) -> Results:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return load_results(path)


def cells(found: Results) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(found)]
    return {line[0]: line[1:] for line in lines}


def test_the_share_closed_is_of_the_means_over_common_seeds(tmp_path: Path) -> None:
    form = "AGKD standardised, balance 1"
    found = results(
        tmp_path,
        *(row(NONE, seed, kid) for seed, kid in enumerate((0.4, 0.8, 0.5))),
        *(row(CEILING, seed, kid) for seed, kid in enumerate((0.2, 0.4))),
        row(form, 0, 0.3, explained=0.2, explained_holdout=0.1, swd=51.2, judge=0.7),
        row(form, 1, 0.5, explained=0.4, explained_holdout=0.1, swd=49.4, judge=0.9),
        row(form, 2, 0.1),  # no ceiling was trained with this seed
    )
    shown = cells(found)
    assert shown[NONE][:4] == ["0.40, 0.80, 0.50", "0.57 ± 0.12", "", "0.00 ± 0.00"]
    assert shown[CEILING][3] == "1.00 ± 0.00"
    # (0.6 - 0.4) / (0.6 - 0.3); with one seed left out (0.8 - 0.5) / (0.8 - 0.4) and (0.4 - 0.3) / (0.4 - 0.2)
    assert shown[form][3] == "0.67 ± 0.12"
    assert shown[form][4:6] == ["50 ± 1", "0.8000 ± 0.1000"]
    assert shown[form][7] == "0.30 ± 0.10 / 0.10 ± 0.00"


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    found = results(
        tmp_path,
        *(row(NONE, seed, kid) for seed, kid in enumerate((0.4, 0.8, 0.5))),
        *(row("matching", seed, kid) for seed, kid in enumerate((0.3, 0.6, 0.2))),
    )
    difference = found.difference("matching")
    assert difference is not None
    assert difference.mean == pytest.approx(-0.2)
    assert difference.error == pytest.approx(0.1 / math.sqrt(3))  # the differences are -0.1, -0.2, -0.3
    assert difference.interval == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert cells(found)["matching"][2] == "-0.20 (-0.45 to +0.05)"


def test_without_a_distance_none_is_closed(tmp_path: Path) -> None:
    """Many images no better than few, as short runs show: a share of less than nothing would look like a success."""
    rows = [row(form, seed, kid) for form, kid in ((NONE, 0.5), (CEILING, 0.6), ("matching", 0.3)) for seed in (0, 1)]
    assert [line[3] for line in list(cells(results(tmp_path, *rows)).values())[2:]] == ["", "", ""]


def test_missing_values_are_empty_cells(tmp_path: Path) -> None:
    form = "whole method (authors' release)"
    assert cells(results(tmp_path, row(form, 0, 0.5)))[form][:7] == ["0.50", "0.50", "", "", "", "", "0.50"]


def test_generated_pages_are_up_to_date() -> None:
    """Run `python -m studies.tables` after a change of the results."""
    for path, text in pages(all_results()).items():
        assert path.read_text(encoding="utf-8") == text, path


def test_the_figure_has_a_dot_for_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    dots: list[int] = []
    plot = Axes.plot

    def count(self: Axes, x: Any, y: Any, *form: Any, **options: Any) -> Any:
        if form == ("o",):
            dots.append(len(x))
        return plot(self, x, y, *form, **options)

    monkeypatch.setattr(Axes, "plot", count)
    rows = [row(form, seed, 0.5) for form in EVIDENCE for seed in range(2)]
    save_figure({"drawings": results(tmp_path, *rows), "cats": Results({})}, tmp_path)
    assert dots == [2] * len(EVIDENCE)
    assert (tmp_path / "evidence.png").stat().st_size > 1000


def test_every_form_is_a_command() -> None:
    """Its flags are flags of train.py, and its folder a name for a folder."""
    known = {item.flag_name(flag) for item in options_of(KDConfig)} | {"--kd-variant"}
    known |= {"--kd-import", "--kd-deviations"}  # studies/kernel_terms.py
    for form, flags in FORMS.items():
        assert {flag.partition("=")[0] for flag in flags} <= known, form
        assert set(Run(form, 0).name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
    assert len({Run(form, 0).name for form in FORMS}) == len(FORMS)
    assert set(EVIDENCE) <= set(FORMS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--form=agkd"], "--form: 'agkd' is unknown; known are: none, all images"),
        (["--few=x.zip"], "--few and --all: give both, or neither"),
    ],
)
def test_mistakes(tmp_path: Path, flags: list[str], message: str) -> None:
    result = CliRunner().invoke(main, [f"--out={tmp_path}", "--detector=x.pt", *flags])
    assert result.exit_code == 2
    assert message in result.output


def test_sliced_wasserstein_of_equal_other_and_damaged_images() -> None:
    images = torch.stack([torch.from_numpy(draw(number, series=7).pixels) for number in range(96)]).float()
    equal, half = sliced_wasserstein(images, images), sliced_wasserstein(images[::2], images[1::2])
    assert equal < half / 2  # not 0: patches are taken at other places
    generator = torch.Generator().manual_seed(0)
    noisy = images[1::2] + 20 * torch.randn(48, 3, 32, 32, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(images[1::2], 3, stride=1, padding=1)
    assert half < sliced_wasserstein(images[::2], noisy)
    assert half < sliced_wasserstein(images[::2], blurred)
    assert sliced_wasserstein(images[::2], images[1::2], seed=0) == half
    flat = sliced_wasserstein(torch.full_like(images, 7), images)  # a generator that has collapsed
    assert half < flat < float("inf")


def test_a_laplacian_pyramid_adds_up_to_the_image() -> None:
    images = torch.rand(2, 3, 64, 64)
    levels = laplacian_pyramid(images)
    assert [level.shape[2] for level in levels] == [64, 32, 16]
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        spaced = torch.zeros_like(level)
        spaced[:, :, ::2, ::2] = whole
        whole = level + 4 * _blurred(spaced)
    torch.testing.assert_close(whole, images)
    flat = laplacian_pyramid(torch.full((1, 3, 32, 32), 7.0))
    torch.testing.assert_close(flat[0][..., 4:-4, 4:-4], torch.zeros(1, 3, 24, 24), atol=1e-5, rtol=0)


def test_views_of_one_image_are_nearer_than_those_of_two() -> None:
    images = torch.stack([torch.from_numpy(draw(number, series=7).pixels) for number in range(48)]).float()
    generator = torch.Generator().manual_seed(0)
    first, second = (augmented(images, generator).flatten(1) - 127.5 for _ in range(2))
    assert not torch.equal(first, second)
    assert contrastive_loss(first, second) < contrastive_loss(first, second.roll(1, dims=0)) - 0.5


def test_a_trained_judge_is_a_detector(tmp_path: Path) -> None:
    images = torch.stack([torch.from_numpy(draw(number, series=7).pixels) for number in range(16)])
    untrained, trained = train(images, steps=0), train(images, steps=2)
    assert not torch.equal(untrained.trunk[0].weight, trained.trunk[0].weight)
    torch.jit.script(trained).save(tmp_path / "judge.pt")
    assert load_detector(str(tmp_path / "judge.pt"))(images).shape == (16, WIDTH)


def test_the_laplace_discrepancy_draws_generated_images_to_the_real_ones() -> None:
    real, fake = torch.randn(64, 5), torch.randn(64, 5) * 0.2 + 2
    points = fake.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([points], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        laplace_discrepancy(points, real).backward()
        optimizer.step()
    assert float(energy_distance(fake, real)) > 1.5
    assert float(energy_distance(points.detach(), real)) < 0.1
    assert 1 < float(points.detach().std()) < 2  # they do not collapse; those of real images have 1


@pytest.mark.parametrize(
    "form", [form for form, flags in FORMS.items() if any("--kd-import" in flag for flag in flags)]
)
def test_forms_with_code_of_the_study(form: str) -> None:
    """In a process of its own: what is registered has flags everywhere."""
    command = ["train.py", "--data=demo", "--kd=demo", "--dry-run", "--device=cpu", *FORMS[form]]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    terms = json.loads(done.stdout)["kd"]
    active = [name for name in ("agkd", "cgkd", "match", "critic", "deviations") if terms[name]]
    laplace = "--kd-match-distance=laplace" in FORMS[form]
    assert (active, terms["match_distance"]) == ((["match"], "laplace") if laplace else (["deviations"], "drift"))


def test_the_laplace_discrepancy_is_unbiased() -> None:
    values = [float(laplace_discrepancy(torch.randn(16, 4), torch.randn(16, 4))) for _ in range(400)]
    assert abs(sum(values) / 400) < 4 * float(torch.tensor(values).std()) / 20
    assert min(values) < 0 < max(values)


def test_means_and_deviations_by_definition() -> None:
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found = means_and_deviations(maps)
    assert found.shape == (2, 6, 2, 2)
    block = maps[1, 2, 2:4, 0:2]
    assert float(found[1, 2, 1, 0]) == pytest.approx(float(block.mean()))
    assert float(found[1, 5, 1, 0]) == pytest.approx(float(block.std(correction=0)), rel=1e-4)


def test_samples_side_by_side(tmp_path: Path) -> None:
    command = []
    for value, name in ((50, "a"), (90, "b"), (130, "c"), (170, "d")):
        grid = Image.new("RGB", (512, 256), (value, 0, 0))
        grid.paste((255, 255, 255), (256, 0, 512, 256))  # tiles that are not shown
        grid.save(tmp_path / f"{name}.png")
        command.append(f"form {name}={tmp_path / name}.png")
    out = tmp_path / "sheet.png"
    assert CliRunner().invoke(samples.main, [*command, f"--out={out}"]).exit_code == 0
    sheet = Image.open(out)
    assert sheet.size == (3 * 256 + 2 * 12, 2 * (256 + 22) + 12)
    middles = [sheet.getpixel((x, y)) for x, y in ((128, 150), (396, 150), (664, 150), (128, 440), (396, 440))]
    assert middles == [(50, 0, 0), (90, 0, 0), (130, 0, 0), (170, 0, 0), (255, 255, 255)]
    caption = sheet.crop((0, 0, 256, 22)).convert("L")
    assert caption.getextrema() == (0, 255)


def test_all_samples_have_the_size_of_the_smallest_grid() -> None:
    sheet = samples.side_by_side({"a": Image.new("RGB", (512, 256)), "b": Image.new("RGB", (512, 224))})
    assert sheet.size == (2 * 256 + 12, 224 + 22)


@pytest.mark.parametrize(
    ("given", "message"),
    [("grid.png", "expected NAME=PNG"), ("a=missing.png", "cannot be read")],
)
def test_samples_that_cannot_be_shown(
    given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(samples.main, [given, "--out=sheet.png"])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("sheet.png").exists()
