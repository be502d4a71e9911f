"""Generate images from a network.

\b
    python generate.py --network=runs/00000-.../network-snapshot-000300.safetensors --seeds=0-31 --trunc=0.7
    python generate.py --network=ffhq.pkl --seeds=85,265 --trunc=0.5,0.7,1
    python generate.py --network=FILE --count=50000 --out=fakes.zip

Other commands; `python generate.py COMMAND --help` describes each:

\b
    interpolate    a film (mp4, gif, webp) of the way between seeds
    style-mixing   a grid in which coarse layers come from one seed and fine ones from another
    project        the w whose image is nearest to a given picture
    ui             a page in the browser
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
from typing import Any

import click

from kd_plugin.config.click_flags import CommandGroup, GroupedCommand, add_flags, code_option, options_from
from training.cli import arguments_of, from_python, function, script, warn
from training.generation.images import Generated, ImagesOptions, make_images
from training.generation.inputs import latents
from training.generation.interpolation import InterpolationOptions, film
from training.generation.mixing import MixingOptions, mix_styles
from training.generation.projection import ProjectionOptions, project_picture
from training.generation.ui import UiOptions, serve

__all__ = ["generate", "latents", "main"]

DEFAULT = "images"
WIDE = {"max_content_width": 120}
_MIXING = """A grid in which coarse layers come from one seed and fine ones from another.

\b
    python generate.py style-mixing --network=FILE --rows=85,100,75 --cols=55,821,1789
"""
_INTERPOLATION = """A film (mp4, gif, webp) of the way between seeds.

\b
    python generate.py interpolate --network=FILE --seeds=3,17,8 --out=way.mp4
"""
_PROJECTION = """The w whose image is nearest to a given picture.

\b
    python generate.py project --network=FILE --target=face.jpg --detector=clip
"""
_UI = """A page in the browser: seeds, truncation, the way between two seeds, the nearest training image.

\b
    python generate.py ui --network=FILE

It needs gradio: pip install 'gradio>=6'
"""


@click.group(cls=CommandGroup, default=DEFAULT, context_settings=WIDE)
def main() -> None:
    pass


@main.command(DEFAULT, cls=GroupedCommand, help=__doc__, context_settings=WIDE)
@add_flags(ImagesOptions)
@code_option
@script
def images_command(**flags: Any) -> None:
    made, notes = make_images(options_from(ImagesOptions, flags))
    if made.images:
        click.echo(f"{len(made.images)} images{' and ' + made.grid.name if made.grid else ''} are in {made.folder}")
    else:
        click.echo(f"{made.folder} is written")
    for line in notes:
        click.echo(line)


@function(lambda: arguments_of(ImagesOptions))
def generate(**options: Any) -> Generated:
    """What the command does, from Python.

    Args:
        options: its flags, with _ for - (`trunc_cutoff=4`, `class_="dog"`); see `ImagesOptions`. `trunc` may be a
            number or a list of numbers.

    Returns:
        The files. What is worth a note is a Python warning.

    Raises:
        UserError: as the command; names the argument.
        RunFailed: not enough memory, or the images cannot be written.
    """
    made, notes = make_images(from_python(ImagesOptions, _as_text(options)))
    warn(notes)
    return made


@main.command("style-mixing", cls=GroupedCommand, help=_MIXING, context_settings=WIDE)
@add_flags(MixingOptions)
@code_option
@script
def mixing_command(**flags: Any) -> None:
    made = mix_styles(options_from(MixingOptions, flags))
    click.echo(f"{len(made.images)} images and grid.png are in {made.folder}")


@main.command(cls=GroupedCommand, help=_INTERPOLATION, context_settings=WIDE)
@add_flags(InterpolationOptions)
@code_option
@script
def interpolate(**flags: Any) -> None:
    options = options_from(InterpolationOptions, flags)
    path, frames = film(options)
    click.echo(f"{path}: {frames} frames, {frames / options.fps:.1f} s")


@main.command(cls=GroupedCommand, help=_PROJECTION, context_settings=WIDE)
@add_flags(ProjectionOptions)
@code_option
@script
def project(**flags: Any) -> None:
    found = project_picture(options_from(ProjectionOptions, flags))
    click.echo(
        f"{found.folder}: projected_w.npz, proj.png, target.png and progress.png; the distance fell from "
        f"{found.first:.4g} to {found.last:.4g}"
    )
    click.echo(f"--projected-w={found.folder / 'projected_w.npz'} makes its image again")


@main.command(cls=GroupedCommand, help=_UI, context_settings=WIDE)
@add_flags(UiOptions)
@code_option
@script
def ui(**flags: Any) -> None:
    serve(options_from(UiOptions, flags), click.echo)


def _as_text(options: dict[str, Any]) -> dict[str, Any]:
    """Numbers of --trunc as they are typed."""
    psi = options.get("trunc")
    if isinstance(psi, (int, float)) and not isinstance(psi, bool):
        return {**options, "trunc": str(psi)}
    if isinstance(psi, (list, tuple)):
        return {**options, "trunc": ",".join(map(str, psi))}
    return options


if __name__ == "__main__":
    main()
