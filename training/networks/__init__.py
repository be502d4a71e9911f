"""StyleGAN2's generator and discriminator; parameters and buffers have the names of the official StyleGAN2-ADA."""

from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.networks.mapping import MappingNetwork
from training.networks.synthesis import SynthesisNetwork

__all__ = ["Discriminator", "Generator", "MappingNetwork", "SynthesisNetwork"]
