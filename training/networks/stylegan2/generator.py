"""The generator: mapping and synthesis in one module, as in snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.networks.interface import GeneratorNetwork
from training.networks.stylegan2.layers import low_precision_blocks
from training.networks.stylegan2.mapping import MappingNetwork
from training.networks.stylegan2.synthesis import SynthesisNetwork

__all__ = ["Generator"]


class Generator(GeneratorNetwork):
    """z and a label to an image: `G.synthesis(G.mapping(z, c))`.

    Args:
        z_dim: width of the latent.
        c_dim: width of the label; 0 = unconditional.
        w_dim: width of the intermediate latent.
        img_resolution: a power of two of at least 4.
        img_channels: 3 for RGB.
        mapping_layers: number of layers of the mapping network.
        channel_base, channel_max, num_fp16_res, conv_clamp, use_noise: see `SynthesisNetwork`.

    `init_kwargs` holds these arguments: `Generator(**G.init_kwargs)` is a network that takes `G.state_dict()`.
    """

    options: ClassVar[Mapping[str, str]] = {
        "channel_base": "cbase",
        "channel_max": "cmax",
        "z_dim": "z_dim",
        "w_dim": "w_dim",
        "mapping_layers": "map_depth",
        "num_fp16_res": "num_fp16_res",
        "conv_clamp": "conv_clamp",
        "use_noise": "noise",
    }
    has_w = True

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        use_noise: bool = True,
    ) -> None:
        # First statement, so that locals() are the arguments and nothing else.
        init_kwargs = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.init_kwargs = init_kwargs
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(
            w_dim, img_resolution, img_channels, channel_base, channel_max, num_fp16_res, conv_clamp, use_noise
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, num_layers=mapping_layers)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> Tensor:
        """See `GeneratorNetwork.forward`.

        Making images changes nothing: the running mean of w, which moves in training, is for the trainer to move.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, skip_w_avg_update=True)
        return self.synthesis(ws, noise_mode, force_fp32)

    def training_images(
        self, z: Tensor, c: Tensor, *, style_mixing: float = 0.0, update_averages: bool = False
    ) -> tuple[Tensor, Tensor]:
        ws = self.mapping(z, c, skip_w_avg_update=not update_averages)
        if torch.rand([]) < style_mixing:
            cutoff = int(torch.randint(1, ws.shape[1], []))  # one crossover for the batch
            other = self.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
            ws = torch.cat([ws[:, :cutoff], other[:, cutoff:]], dim=1)
        return self.synthesis(ws), ws

    def running_averages(self) -> list[Tensor]:
        return [self.mapping.w_avg]

    def low_precision_blocks(self) -> list[nn.Module]:
        return low_precision_blocks(self, self.img_resolution, self.init_kwargs["num_fp16_res"])
