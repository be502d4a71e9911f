"""The page of `generate.py ui`.

What it shows is tested everywhere; the page itself in a browser, by hand:
`pip install -e '.[ui]' playwright; python -m pytest -m ui tests/host/test_ui.py`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from generate import main
from tests.hosts.shared import write_images
from training.checkpoint import save_snapshot
from training.generation.playground import SHOWN, Playground, seed_of
from training.generation.ui import UiOptions, open_playground
from training.networks.stylegan2 import Generator
from training.report.image_grid import to_pixels

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    write_images(path)
    return path


def network(path: Path, config: Any = None, **options: int) -> Path:
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3, "mapping_layers": 2}
    G = Generator(**{**sizes, "channel_base": 256, "channel_max": 16, **options})
    save_snapshot(path, {"G_ema": G}, {"config": config, "class_names": ["cat", "dog"] if G.c_dim else None})
    return path


def opened(path: Path, **options: Any) -> tuple[Playground, str]:
    return open_playground(UiOptions(network=str(path), **options))


def test_images_of_a_seed_and_between_two(tmp_path: Path) -> None:
    path = network(tmp_path / "n.safetensors", c_dim=2)
    playground, note = opened(path)
    assert "does not say what it was trained on" in note
    assert playground.classes == ["cat", "dog"]
    assert (
        CliRunner()
        .invoke(main, [f"--network={path}", "--seeds=7", "--class=dog", "--trunc=0.5", f"--outdir={tmp_path}"])
        .exit_code
        == 0
    )
    from PIL import Image

    image = playground.image(7, 0.5, 1)
    written = np.asarray(Image.open(tmp_path / "seed0007.png")).astype(int)
    assert abs(to_pixels(image)[0] - written).max() <= 1
    for share, seed in ((0.0, 7), (1.0, 3)):
        torch.testing.assert_close(
            playground.between(7, 3, share, 0.5, 1), playground.image(seed, 0.5, 1), atol=1e-4, rtol=1e-4
        )
    shown = playground.shown(image)
    assert shown.shape == (SHOWN, SHOWN, 3)
    np.testing.assert_array_equal(shown[:: SHOWN // 16, :: SHOWN // 16], to_pixels(image)[0])
    assert playground.closest(image) is None


def test_the_nearest_training_image(tmp_path: Path, images: Path) -> None:
    playground, note = opened(network(tmp_path / "n.safetensors"), data=str(images))
    assert note == ""
    train = playground.train
    assert train is not None
    pixels, _ = train.gather(np.array([3]))
    nearly = torch.from_numpy(pixels).float() / 127.5 - 1
    found = playground.closest(nearly + 0.01 * torch.randn_like(nearly))
    assert found is not None
    picture, line = found
    np.testing.assert_array_equal(picture[:: SHOWN // 16, :: SHOWN // 16], pixels[0].transpose(1, 2, 0))
    assert line.startswith(train.file_name(3))
    assert float(re.findall(r"at ([\d.]+) times", line)[0]) < 0.2


def test_the_images_of_the_run_are_found_by_themselves(tmp_path: Path, images: Path) -> None:
    config = {"data": str(images), "resolution": 16, "subset": 5, "kd": {"teacher": "none"}}
    playground, note = opened(network(tmp_path / "n.safetensors", config))
    assert note == ""
    assert playground.train is not None
    assert playground.train.used == 5
    moved = images.rename(tmp_path / "moved.zip")
    playground, note = opened(network(tmp_path / "n.safetensors", config))
    assert playground.train is None
    assert "if they were moved, give --data" in note
    playground, note = opened(network(tmp_path / "n.safetensors", config), data=str(moved))
    assert playground.train is not None
    assert playground.train.used == 5


@pytest.mark.parametrize("value", [None, -1, 0.5, 2.0**32])
def test_what_is_no_seed(value: float | None) -> None:
    with pytest.raises(ValueError, match="a seed is a whole number from 0"):
        seed_of(value)
    assert seed_of(3.0) == 3


def test_without_gradio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else before(name))
    result = CliRunner().invoke(main, ["ui", f"--network={network(tmp_path / 'n.safetensors')}"])
    assert result.exit_code == 2
    assert "ui: needs gradio; pip install 'gradio>=6'" in result.output


@pytest.fixture
def address(tmp_path: Path, images: Path) -> Iterator[str]:
    """Of a running page."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = network(tmp_path / "n.safetensors", c_dim=2)
    words = ["ui", f"--network={path}", f"--data={images}", f"--port={port}", "--browser=false"]
    program = subprocess.Popen([sys.executable, ROOT / "generate.py", *words], cwd=tmp_path, stdout=subprocess.PIPE)
    assert program.stdout is not None
    try:
        line = program.stdout.readline().decode()
        assert line.startswith(f"http://127.0.0.1:{port} shows"), line
        yield f"http://127.0.0.1:{port}"
    finally:
        program.terminate()
        program.wait(30)


@pytest.mark.ui
def test_the_page_in_a_browser(address: str, tmp_path: Path) -> None:
    """Everything on it does something, and nothing is asked of another machine. $KD_SCREENSHOTS keeps pictures."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    pictures = Path(os.environ.get("KD_SCREENSHOTS", tmp_path))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)

        def shown() -> list[str]:
            page.wait_for_timeout(2000)
            return [image.get_attribute("src") for image in page.locator("img:visible").all()]

        page.wait_for_selector('img[src*="file="]', timeout=60_000)
        seen = [shown()]
        page.screenshot(path=pictures / "one-seed.png")
        assert "times the distance that is usual" in page.content()
        page.get_by_role("button", name="Another seed").click()
        seen.append(shown())
        page.get_by_label("Class").click()
        page.get_by_role("option", name="dog").click()
        seen.append(shown())
        page.get_by_role("tab", name="Between two seeds").click()
        seen.append(shown())
        page.get_by_label("First seed").fill("5")
        seen.append(shown())
        page.screenshot(path=pictures / "between.png")
        page.get_by_label("First seed").fill("-5")
        page.wait_for_timeout(2000)
        assert "a seed is a whole number from 0" in page.content()
        browser.close()
    generated = [images[0] for images in seen]
    assert len(set(generated)) == len(generated)
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
