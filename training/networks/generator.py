"""The generator: mapping and synthesis in one module, as in snapshots."""

from __future__ import annotations

from torch import Tensor, nn

from training.networks.mapping import MappingNetwork
from training.networks.synthesis import SynthesisNetwork

__all__ = ["Generator"]


class Generator(nn.Module):
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
        """Latents [N, z_dim] and labels [N, c_dim] to images [N, img_channels, img_resolution, img_resolution].

        Making images changes nothing: the running mean of w, which moves in training, is for the trainer to move.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, skip_w_avg_update=True)
        return self.synthesis(ws, noise_mode, force_fp32)
