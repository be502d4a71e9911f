"""Metrics of generated images: distances between features of generated and of real images."""

from training.metrics.detectors import Detector, load_detector, load_perceptual
from training.metrics.evaluation import (
    EvaluationOptions,
    GeneratedImages,
    ImageFolder,
    MetricResult,
    Reals,
    check,
    evaluate,
)
from training.metrics.registry import EXAMPLES, FAMILIES, Metric, parse_metrics

__all__ = [
    "EXAMPLES",
    "FAMILIES",
    "Detector",
    "EvaluationOptions",
    "GeneratedImages",
    "ImageFolder",
    "Metric",
    "MetricResult",
    "Reals",
    "check",
    "evaluate",
    "load_detector",
    "load_perceptual",
    "parse_metrics",
]
