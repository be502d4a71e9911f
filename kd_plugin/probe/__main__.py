"""Report what a teacher knows about these images and what a discriminator can learn from it, in about a minute.

\b
    python -m kd_plugin.probe --data=100-shot-obama.zip --kd=clip
"""

from __future__ import annotations

from functools import partial

import torch

from kd_plugin.errors import KDError
from kd_plugin.image_io import read_pictures
from kd_plugin.probe.run import MAX_IMAGES, SECONDS, probe_teacher
from kd_plugin.probe.stand_in import StandIn
from kd_plugin.programs import ends_with_message, require_packages
from kd_plugin.teachers import load_teachers
from kd_plugin.user_code import import_attribute


def main(arguments: list[str] | None = None) -> None:
    require_packages("kd_plugin.probe")
    import click

    @click.command(help=__doc__)
    @click.option("--data", required=True, metavar="ZIP|DIR", help="Images")
    @click.option("--kd", "spec", default="clip", show_default=True, metavar="SPEC", help="Teacher, as for train.py")
    @click.option("--resolution", default=64, show_default=True, help="Resolution of D's images, in pixels")
    @click.option("--images", "max_images", default=MAX_IMAGES, show_default=True, help="Use at most this many")
    @click.option("--batch", default=16, show_default=True, help="Images a step")
    @click.option("--seconds", default=SECONDS, show_default=True, help="Time for all trials")
    @click.option(
        "--discriminator",
        metavar="MODULE:ATTRIBUTE",
        help="Your discriminator: called with the resolution, it returns a D for images [N, 3, H, W]  [default: one "
        "shaped like StyleGAN2's]",
    )
    @click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
    def command(
        data: str, spec: str, resolution: int, max_images: int, batch: int, seconds: float, discriminator: str | None,
        device: str,
    ) -> None:  # fmt: skip
        with ends_with_message():
            if resolution < 8 or resolution & (resolution - 1):
                raise KDError(f"--resolution: {resolution} was given, it must be a power of two from 8 up")
            images = read_pictures(data, resolution, max_images).to(device)
            make = (
                StandIn
                if discriminator is None
                else import_attribute(discriminator, f"--discriminator={discriminator}")
            )
            torch.manual_seed(0)
            d = make(resolution).to(device)
            on_message = partial(click.echo, err=True)
            for _, teacher in load_teachers(spec, device):
                for line in probe_teacher(
                    d, teacher, images, batch=batch, seconds=seconds, on_message=on_message
                ).lines():
                    click.echo(line)

    command(arguments)


if __name__ == "__main__":
    main()
