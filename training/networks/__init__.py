"""The architectures that the trainer can train, by the name that --model takes."""

from kd_plugin.registry import Registry
from training.networks import biggan, stylegan2
from training.networks.interface import DiscriminatorNetwork, GeneratorNetwork, Model, Network

__all__ = ["MODELS", "DiscriminatorNetwork", "GeneratorNetwork", "Model", "Network", "model_of"]

MODELS: Registry[Model] = Registry("model")
MODELS.register("stylegan2")(Model(stylegan2.Generator, stylegan2.Discriminator))
MODELS.register("biggan")(Model(biggan.Generator, biggan.Discriminator))


def model_of(network: Network) -> str:
    """The name of the architecture that a network belongs to."""
    return next(name for name in MODELS if isinstance(network, (MODELS[name].generator, MODELS[name].discriminator)))
