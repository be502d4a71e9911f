"""Report what a teacher knows about these images and what a discriminator can learn from it, in about a minute.

\b
    python -m kd_plugin.probe --data=100-shot-obama.zip --kd=clip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass
from functools import partial
from typing import Any

import torch

from kd_plugin.config.ranges import ABOVE_0, Range
from kd_plugin.config.schema import option
from kd_plugin.errors import KDError
from kd_plugin.image_io import read_pictures
from kd_plugin.probe.run import MAX_IMAGES, SECONDS, probe_teacher
from kd_plugin.probe.stand_in import StandIn
from kd_plugin.programs import ends_with_message, require_packages
from kd_plugin.teachers import load_teachers
from kd_plugin.user_code import import_attribute


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this program."""

    data: str = option(MISSING, "Images", metavar="ZIP|DIR", group="Probe")
    kd: str = option("clip", "Teacher, as for train.py", metavar="SPEC")
    resolution: int = option(64, "Resolution of D's images (a power of two)", Range(8, 2**14), metavar="PIXELS")
    images: int = option(MAX_IMAGES, "Use at most this many", Range(2), metavar="N", shown_default=str(MAX_IMAGES))
    batch: int = option(16, "Images a step", Range(1, 2**20), metavar="N")
    seconds: float = option(SECONDS, "Time for all trials", ABOVE_0, metavar="SECONDS")
    discriminator: str | None = option(
        None,
        "Your discriminator: called with the resolution, it returns a D for images [N, 3, H, W]",
        metavar="MODULE:ATTRIBUTE",
        shown_default="one shaped like StyleGAN2's",
    )
    device: str | None = option(None, "cpu, cuda or cuda:N", metavar="NAME", shown_default="cuda if there is one")


def main(arguments: list[str] | None = None) -> None:
    require_packages("kd_plugin.probe")
    import click

    from kd_plugin.config.click_flags import GroupedCommand, add_flags, options_from

    @click.command(cls=GroupedCommand, help=__doc__)
    @add_flags(Options)
    def command(**flags: Any) -> None:
        with ends_with_message():
            _report(options_from(Options, flags), partial(click.echo, err=True), click.echo)

    command(arguments)


def _report(options: Options, on_message: Callable[[str], None], on_line: Callable[[str], None]) -> None:
    size = options.resolution
    if size & (size - 1):
        raise KDError(f"--resolution: {size} was given, it must be a power of two from 8 up")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    images = read_pictures(options.data, size, options.images).to(device)
    spec = options.discriminator
    make = StandIn if spec is None else import_attribute(spec, f"--discriminator={spec}")
    torch.manual_seed(0)
    d = make(size).to(device)
    for _, teacher in load_teachers(options.kd, device):
        report = probe_teacher(d, teacher, images, batch=options.batch, seconds=options.seconds, on_message=on_message)
        for line in report.lines():
            on_line(line)


if __name__ == "__main__":
    main()
