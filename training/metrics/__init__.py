"""How good the generated images are, as numbers: distances between features of generated and of real images."""

from training.metrics.compute import METRICS, MetricResult, evaluate, pixel_source
from training.metrics.features import Detector, load_detector

__all__ = ["METRICS", "Detector", "MetricResult", "evaluate", "load_detector", "pixel_source"]
