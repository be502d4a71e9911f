"""BigGAN for small images (CIFAR); parameters and buffers have the names of the authors' PyTorch networks."""

from training.networks.biggan.discriminator import Discriminator
from training.networks.biggan.generator import Generator

__all__ = ["Discriminator", "Generator"]
