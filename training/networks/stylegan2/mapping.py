"""z (and a label) to w: the mapping network, and the truncation of w towards its running mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks.shapes import check_labels, check_shape
from training.networks.stylegan2.layers import FullyConnectedLayer, normalize_2nd_moment

__all__ = ["MappingNetwork"]


class MappingNetwork(nn.Module):
    """A stack of fully connected layers from a normalised latent and an embedded label to w.

    Args:
        z_dim: width of the latent; 0 = the label is the only input.
        c_dim: width of the label; 0 = no labels.
        w_dim: width of w and of the layers.
        num_ws: how many copies of w to return; None = w itself, without the axis of copies.
        num_layers: number of fully connected layers.
        lr_multiplier: learning rate of the layers, relative to the rest of the generator.
        w_avg_beta: decay per training batch of the running mean of w; None = no running mean, hence no truncation.

    Source: Karras et al. 2019, "A Style-Based Generator Architecture", section 2 and appendix B (truncation);
    labels: Karras et al. 2020, "Training GANs with Limited Data", the CIFAR-10 experiments.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        super().__init__()
        if z_dim == 0 and c_dim == 0:
            raise ValueError("the mapping network has no input: z_dim and c_dim are both 0.")
        if num_layers < (1 if z_dim > 0 else 0):
            raise ValueError(f"mapping_layers={num_layers}; expected at least 1, or 0 where labels are the only input.")
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim > 0 else 0)
        for i in range(num_layers):
            layer = FullyConnectedLayer(width, w_dim, activation="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
            width = w_dim
        if w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
    ) -> Tensor:
        """Map, and move w towards its mean.

        Args:
            z: [N, z_dim], N(0,1); None if z_dim is 0.
            c: [N, c_dim]; may be None if c_dim is 0.
            truncation_psi: 1 = w as it is, 0 = the mean of w.
            truncation_cutoff: truncate only this many copies, those of the lowest resolutions; None = all.
            skip_w_avg_update: leave the running mean of w alone, as it is in eval mode anyway.

        Returns:
            [N, num_ws, w_dim], or [N, w_dim] if num_ws is None.

        Raises:
            ValueError: latent or labels of the wrong shape.
        """
        inputs = []
        if self.z_dim > 0:
            if z is None:
                raise ValueError(f"no latents were given; expected [N, {self.z_dim}].")
            check_shape("the latent z", z, (self.z_dim,))
            inputs.append(normalize_2nd_moment(z.to(torch.float32)))
        c = check_labels(c, self.c_dim, inputs[0].shape[0] if inputs else None)
        if c is not None:
            inputs.append(normalize_2nd_moment(self.embed(c)))
        w = torch.cat(inputs, dim=1)
        for i in range(self.num_layers):
            w = self.get_submodule(f"fc{i}")(w)

        if self.w_avg_beta is not None and self.training and not skip_w_avg_update:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is None:
            return w
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)  # [N, num_ws, w_dim]
        if truncation_psi == 1:
            return ws
        if self.w_avg_beta is None:
            raise ValueError(f"truncation_psi={truncation_psi}, but this network keeps no running mean of w.")
        kept = self.num_ws if truncation_cutoff is None else truncation_cutoff
        truncated = self.w_avg.lerp(ws[:, :kept], truncation_psi)
        return torch.cat([truncated, ws[:, kept:]], dim=1)
