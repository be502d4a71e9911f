"""What the trainer asks of an architecture: a generator and a discriminator, and which options set their arguments.

A new architecture is one package beside `stylegan2` and `biggan`, and one entry in `training.networks.MODELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from dnnlib.errors import UserError

__all__ = ["DiscriminatorNetwork", "GeneratorNetwork", "Model", "Network"]


class Network(nn.Module):
    """A generator or a discriminator.

    Its constructor also takes c_dim (the width of the label; 0 = unconditional), img_resolution and img_channels, which
    the images decide.

    Attributes:
        options: which field of TrainConfig sets which argument of the constructor: {"channel_max": "cmax"}.
        init_kwargs: the arguments it was built with: `type(N)(**N.init_kwargs)` takes `N.state_dict()`.
    """

    options: ClassVar[Mapping[str, str]] = {}
    init_kwargs: dict[str, Any]
    c_dim: int
    img_resolution: int
    img_channels: int

    @classmethod
    def arguments(cls, config: object) -> dict[str, Any]:
        """Of the constructor, as far as the options of a run decide them."""
        return {argument: getattr(config, field) for argument, field in cls.options.items()}

    def low_precision_blocks(self) -> list[nn.Module]:
        """The modules that compute in --precision, each with an attribute `dtype`; the rest computes in float32."""
        return []


class GeneratorNetwork(Network):
    """Latents to images.

    Attributes:
        has_w: there is an intermediate latent: style mixing, path length regularisation and PPL are possible.
        averages_buffers: the moving average of the weights also averages the buffers; else it copies them.
        z_dim: width of the latent, N(0,1).
    """

    has_w: ClassVar[bool] = False
    averages_buffers: ClassVar[bool] = False
    z_dim: int

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> Tensor:
        """Latents [N, z_dim] and labels [N, c_dim] to images [N, img_channels, img_resolution, img_resolution]."""
        raise NotImplementedError

    def training_images(
        self, z: Tensor, c: Tensor, *, style_mixing: float = 0.0, update_averages: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Images for a training step, and the ws [N, num_ws, w_dim] they were made from (None without `has_w`).

        Args:
            z, c: latents and labels.
            style_mixing: probability that the batch is made from two latents each.
            update_averages: move those running averages that should move once in a step.
        """
        return self(z, c), None

    def running_averages(self) -> list[Tensor]:
        """The buffers that are averages over this process's latents; the trainer averages them over the processes."""
        return []


class DiscriminatorNetwork(Network):
    """Images to logits.

    Attributes:
        features: the layer whose output distillation compares with the teacher, unless --kd-layer names another.
    """

    features: ClassVar[str]

    def forward(self, images: Tensor, c: Tensor | None = None, force_fp32: bool = False) -> Tensor:
        """Images [N, img_channels, R, R] in [-1,1] and labels [N, c_dim] to logits [N, 1]; above 0 = real."""
        raise NotImplementedError

    def frozen_parameters(self, layers: int) -> list[nn.Parameter]:
        """Those of the first `layers` layers from the image on, which Freeze-D keeps (Mo et al. 2020).

        Raises:
            UserError: D has fewer.
        """
        all_layers = self.layers_from_the_image()
        if layers > len(all_layers):
            raise UserError(
                f"--freezed: {layers} was given, but the discriminator's blocks have {len(all_layers)} layers"
            )
        return [parameter for layer in all_layers[:layers] for parameter in layer.parameters()]

    def layers_from_the_image(self) -> list[nn.Module]:
        """The layers that Freeze-D may freeze, in the order in which it freezes them."""
        return []

    def batch_note(self, batch: int) -> str:
        """What the user should know about D seeing `batch` images at once; empty if there is nothing to say."""
        return ""


@dataclass(frozen=True)
class Model:
    """An architecture: its two classes."""

    generator: type[GeneratorNetwork]
    discriminator: type[DiscriminatorNetwork]

    @property
    def options(self) -> frozenset[str]:
        """The fields of TrainConfig that it uses."""
        return frozenset({*self.generator.options.values(), *self.discriminator.options.values()})
