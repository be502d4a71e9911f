"""StyleGAN2's generator and discriminator; parameters and buffers have the names of the official StyleGAN2-ADA."""

from training.networks.stylegan2.discriminator import Discriminator
from training.networks.stylegan2.generator import Generator
from training.networks.stylegan2.mapping import MappingNetwork
from training.networks.stylegan2.synthesis import SynthesisNetwork

__all__ = ["Discriminator", "Generator", "MappingNetwork", "SynthesisNetwork"]
