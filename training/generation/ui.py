"""The page of `generate.py ui`, made with gradio."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.config.ranges import Range
from kd_plugin.config.schema import option
from training.data.dataset import ImageDataset
from training.data.image_sets import ImageOptions, open_training_set
from training.generation.inputs import Source, TruncatedOptions, open_source
from training.generation.likeness import PIXELS
from training.generation.playground import Playground, seed_of
from training.metrics.detectors import load_detector, pixel_detector

__all__ = ["UiOptions", "build_page", "open_playground", "serve"]

_IMAGE: dict[str, Any] = {"format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
FONTS = ["system-ui", "sans-serif"]  # of the machine: gradio's own would be downloaded


@dataclass(frozen=True, kw_only=True)
class UiOptions(TruncatedOptions):
    """The flags of `ui`."""

    data: str | None = option(
        None,
        "The training images, to show the nearest one",
        metavar="ZIP|DIR|NAME",
        shown_default="those that the network was trained on",
        group="Page",
    )
    detector: str = option(
        PIXELS, "What compares images: pixels, inception, a TorchScript file, or a teacher", metavar="NAME|PATH"
    )
    host: str = option(
        "127.0.0.1", "Who may open the page; 0.0.0.0: anybody who reaches this machine", metavar="ADDRESS"
    )
    port: int = option(7860, "The page is at http://HOST:PORT", Range(1, 65535), metavar="N")
    browser: bool = option(True, "Open it in this machine's browser")


def serve(options: UiOptions, told: Callable[[str], object]) -> None:
    """Shows the page until the program is stopped.

    Raises:
        UserError: gradio is missing, the network or images cannot be read, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("ui: needs gradio; pip install 'gradio>=6'")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before it is imported: it would tell its makers
    import gradio

    playground, note = open_playground(options)
    if note:
        told(note)
    theme = gradio.themes.Default(font=FONTS, font_mono=["monospace"])
    try:
        build_page(playground).launch(
            server_name=options.host,
            server_port=options.port,
            inbrowser=options.browser,
            theme=theme,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
        )
    except OSError as error:
        raise UserError(f"--port={options.port}: the page cannot be offered there ({error})") from error
    told(f"http://{options.host}:{options.port} shows {options.network}; Ctrl-C ends it")
    _wait()


def _wait() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def open_playground(options: UiOptions) -> tuple[Playground, str]:
    """The playground, and a note if there are no training images; "" if there are.

    Raises:
        UserError: the network cannot be read, or the images of --data.
    """
    source = open_source(options)
    train, note = _training_images(options, source)
    detector = None
    if train is not None:
        detector = (
            pixel_detector(source.device)
            if options.detector == PIXELS
            else load_detector(options.detector, source.device)
        )
    return Playground(source, options.noise_mode, options.trunc_cutoff, train, detector), note


def _training_images(options: UiOptions, source: Source) -> tuple[ImageDataset | None, str]:
    known = ImageOptions.of(source.config) if source.config and "data" in source.config else None
    if options.data is not None:
        given = ImageOptions(data=options.data) if known is None else dataclasses.replace(known, data=options.data)
        return open_training_set(dataclasses.replace(given, resolution=source.G.img_resolution)), ""
    if known is None:
        return None, "The network does not say what it was trained on; --data=IMAGES shows the nearest training image"
    try:
        return open_training_set(known), ""
    except UserError as error:
        return None, f"No training images are shown: {error}; if they were moved, give --data"


def build_page(playground: Playground) -> Any:
    """The page, as gradio's Blocks."""
    import gradio as gr

    def failing_softly(make: Callable[..., Tensor]) -> Callable[..., tuple[Any, ...]]:
        def outputs(*values: Any) -> tuple[Any, ...]:
            try:
                image = make(*values)
            except ValueError as error:
                raise gr.Error(str(error)) from error
            closest = playground.closest(image)
            return (playground.shown(image), *(closest or ()))

        return outputs

    def one(seed: float, psi: float, label: int | None) -> Tensor:
        return playground.image(seed_of(seed), psi, label)

    def two(first: float, second: float, share: float, psi: float, label: int | None) -> Tensor:
        return playground.between(seed_of(first), seed_of(second), share, psi, label)

    with gr.Blocks(title="kd_plugin", analytics_enabled=False) as page:
        gr.Markdown("# Images of this network")
        label = _class_choice(gr, playground)
        psi = gr.Slider(0, 1.5, value=1, step=0.05, label="Truncation psi (0: the average image, 1: none)")
        with gr.Tab("One seed"):
            with gr.Row():
                seed = gr.Number(0, precision=0, label="Seed")
                another = gr.Button("Another seed")
            outputs = _outputs(gr, playground)
            _connect(page, failing_softly(one), [seed, psi, label], outputs)
            another.click(lambda: random.randrange(100_000), None, seed)
        with gr.Tab("Between two seeds"):
            with gr.Row():
                first = gr.Number(0, precision=0, label="First seed")
                second = gr.Number(1, precision=0, label="Second seed")
            share = gr.Slider(0, 1, value=0.5, step=0.02, label="Share of the second seed")
            _connect(page, failing_softly(two), [first, second, share, psi, label], _outputs(gr, playground))
    return page


def _class_choice(gr: Any, playground: Playground) -> Any:
    names = playground.classes
    if not names:
        return gr.State(None)
    return gr.Dropdown([(name, index) for index, name in enumerate(names)], value=0, label="Class")


def _outputs(gr: Any, playground: Playground) -> list[Any]:
    with gr.Row():
        image = gr.Image(label="Image", **_IMAGE)
        if playground.train is None:
            return [image]
        nearest = gr.Image(label="Nearest training image", **_IMAGE)
    return [image, nearest, gr.Markdown()]


def _connect(page: Any, make: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    """The outputs follow the inputs, from the start on."""
    page.load(make, inputs, outputs)
    for each in inputs:
        if hasattr(each, "change"):
            each.change(make, inputs, outputs, show_progress="hidden", trigger_mode="always_last")
