"""The discriminator that the probe uses if the user names none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["StandIn"]


class StandIn(nn.Module):
    """A residual discriminator with the shape and layer names of StyleGAN2's, used if none was given."""

    def __init__(self, resolution: int, max_channels: int = 128) -> None:
        """
        Args:
            resolution: of the images, a power of two.
            max_channels: of a layer.
        """
        super().__init__()
        self.resolution = resolution

        def channels(size: int) -> int:
            return min(2048 // size, max_channels)

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
