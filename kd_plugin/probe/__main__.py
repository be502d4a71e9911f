"""What does a teacher know about these images, and what of it can a discriminator learn? About a minute.

\b
    python -m kd_plugin.probe --data=100-shot-obama.zip --kd=clip
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugin.errors import KDError, command_line
from kd_plugin.image_io import read_pictures
from kd_plugin.probe.trial import MOST_IMAGES, SECONDS, probe_teacher
from kd_plugin.teachers import load_teachers
from kd_plugin.user_code import import_attribute


class StandIn(nn.Module):
    """A residual discriminator of the shape and the layer names of StyleGAN2's, for who has named none."""

    def __init__(self, resolution: int, most: int = 128) -> None:
        """
        Args:
            resolution: of the images, a power of two.
            most: channels of a layer.
        """
        super().__init__()
        self.resolution = resolution

        def channels(size: int) -> int:
            return min(2048 // size, most)

        width = channels(resolution)
        setattr(self, f"b{resolution}", nn.ModuleDict({"fromrgb": nn.Conv2d(3, width, 1)}))
        size = resolution
        while size > 4:
            block = self.get_submodule(f"b{size}") if size == resolution else nn.ModuleDict()
            assert isinstance(block, nn.ModuleDict)
            before, after = channels(size), channels(size // 2)
            block["skip"] = nn.Conv2d(before, after, 1, bias=False)
            block["conv0"] = nn.Conv2d(before, before, 3, padding=1)
            block["conv1"] = nn.Conv2d(before, after, 3, padding=1)
            setattr(self, f"b{size}", block)
            size //= 2
        last = channels(4)
        self.b4 = nn.ModuleDict(
            {"conv": nn.Conv2d(last, last, 3, padding=1), "fc": nn.Linear(16 * last, 512), "out": nn.Linear(512, 1)}
        )

    def forward(self, x: Tensor) -> Tensor:
        act = nn.functional.leaky_relu
        x = act(self.get_submodule(f"b{self.resolution}.fromrgb")(x), 0.2)
        size = self.resolution
        while size > 4:
            layers: Any = self.get_submodule(f"b{size}")
            y = layers["skip"](x)
            h = act(layers["conv1"](act(layers["conv0"](x), 0.2)), 0.2)
            x = nn.functional.avg_pool2d(h + y, 2) / 2**0.5
            size //= 2
        x = act(self.b4["fc"](act(self.b4["conv"](x), 0.2).flatten(1)), 0.2)
        logits: Tensor = self.b4["out"](x)
        return logits


def main(arguments: list[str] | None = None) -> None:
    try:
        import click
    except ImportError:
        sys.stderr.write("Error: python -m kd_plugin.probe needs two packages more: pip install click pillow\n")
        sys.exit(2)

    @click.command(help=__doc__)
    @click.option("--data", required=True, metavar="ZIP|DIR", help="Images")
    @click.option("--kd", "spec", default="clip", show_default=True, metavar="SPEC", help="Teacher, as for train.py")
    @click.option("--resolution", default=64, show_default=True, help="Of the images the discriminator sees, in pixels")
    @click.option("--images", "most", default=MOST_IMAGES, show_default=True, help="Look at no more than this many")
    @click.option("--batch", default=16, show_default=True, help="Images a step")
    @click.option("--seconds", default=SECONDS, show_default=True, help="For the training of all candidates")
    @click.option(
        "--discriminator",
        metavar="MODULE:ATTRIBUTE",
        help="Yours: called with the resolution it gives a D for images [N, 3, H, W]  [default: one shaped as "
        "StyleGAN2's]",
    )
    @click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
    def command(
        data: str, spec: str, resolution: int, most: int, batch: int, seconds: float, discriminator: str | None,
        device: str,
    ) -> None:  # fmt: skip
        try:
            with command_line():
                if resolution < 8 or resolution & (resolution - 1):
                    raise KDError(f"--resolution: {resolution} was given, it must be a power of two from 8 up")
                images = read_pictures(data, resolution, most).to(device)
                make = (
                    StandIn
                    if discriminator is None
                    else import_attribute(discriminator, f"--discriminator={discriminator}")
                )
                torch.manual_seed(0)
                d = make(resolution).to(device)
                say = partial(click.echo, err=True)
                for _, teacher in load_teachers(spec, device):
                    for line in probe_teacher(d, teacher, images, batch=batch, seconds=seconds, say=say).lines():
                        click.echo(line)
        except KDError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)

    command(arguments)


if __name__ == "__main__":
    main()
