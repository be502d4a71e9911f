"""Augmentation of D's images: ADA and DiffAugment."""

from kd_plugin.diffaugment import DiffAugment
from training.augment.ada import AdaController
from training.augment.pipeline import AugmentPipe
from training.augment.spec import AUGPIPES, AugmentSpec, augpipe

__all__ = ["AUGPIPES", "AdaController", "AugmentPipe", "AugmentSpec", "DiffAugment", "augpipe"]
