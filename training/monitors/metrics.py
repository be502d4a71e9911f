"""Metrics at every snapshot of a run; the best snapshot is kept."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from dnnlib.errors import UserError
from dnnlib.files import errors_name, write_atomic
from dnnlib.text import format_seconds
from torch_utils.ranks import ALONE, Ranks
from training.config import TrainConfig
from training.data.dataset import ImageDataset
from training.data.image_sets import open_reference
from training.metrics import (
    Detector,
    EvaluationOptions,
    GeneratedImages,
    Metric,
    MetricResult,
    Reals,
    check,
    evaluate,
    load_detector,
    parse_metrics,
)
from training.networks import GeneratorNetwork
from training.report.records import read_lines

__all__ = ["BEST_SNAPSHOT", "MetricMonitor"]

_CONDITIONS = ("detector_sha256", "dataset_fingerprint", "num_real", "num_fake")
BEST_SNAPSHOT = "network-snapshot-best.safetensors"


@dataclass(frozen=True)
class Measured:
    """Lines for the log, and the values by name."""

    lines: list[str]
    values: dict[str, float]


@dataclass(frozen=True)
class MetricMonitor:
    """Measures snapshots by `metrics`; keeps the best by `best` under its own name."""

    metrics: list[Metric]
    best: Metric
    detector: Detector
    reals: Reals
    seed: int

    @classmethod
    def build(cls, config: TrainConfig, train: ImageDataset, device: torch.device) -> MetricMonitor | None:
        """Build the monitor and check that everything can be measured; None with --metrics=none.

        Args:
            config: of the run.
            train: the images it trains on.
            device: where to compute.

        Raises:
            UserError: an unknown metric, a detector that cannot be used, too few images.
        """
        metrics = parse_metrics(config.metrics)
        if not metrics:
            return None
        name = config.best or metrics[0].name
        best = next((metric for metric in metrics if metric.name == name), None)
        if best is None:
            raise UserError(f"--best: '{name}' is not among --metrics={config.metrics}")
        try:
            detector = load_detector(config.detector, device)
            reference = open_reference(config.images, train)
            check(metrics, reference, detector)
        except UserError as error:
            raise UserError(f"{error}. To train without metrics give --metrics=none") from None
        return cls(metrics, best, detector, Reals(reference, train), config.seed)

    def describe(self) -> str:
        names = ", ".join(metric.name for metric in self.metrics)
        reference = self.reals.reference
        return (
            f"{names} at every snapshot, by {self.detector.name} (SHA-256 {self.detector.sha256[:16]}...), against "
            f"{len(reference)} images ({reference.name}); {BEST_SNAPSHOT} is the best by {self.best.name}"
        )

    def has_measured(self, run_dir: Path, nimg: int) -> bool:
        """Whether every metric has its line for the snapshot at `nimg`: a run may be killed before it is measured."""
        return all(_measured_last(_path(run_dir, metric.name)) == nimg / 1000 for metric in self.metrics)

    def measure(
        self, G_ema: GeneratorNetwork, run_dir: Path, snapshot: Path, nimg: int, ranks: Ranks = ALONE
    ) -> Measured:
        """Measures, all processes together; process 0 appends to metric-<name>.jsonl, and keeps `snapshot` if it is the
        best so far."""
        started = time.perf_counter()
        device = next(G_ema.parameters()).device
        try:
            fakes = GeneratedImages(G_ema, self.reals.reference, seed=self.seed, device=device)
            options = EvaluationOptions(seed=self.seed, ranks=ranks)
            results = evaluate(fakes, self.reals, self.detector, self.metrics, options)
        except UserError as error:  # the training continues: it may have run for days
            return Measured([f"Metrics:     not measured: {error}"], {})
        if not ranks.is_main:
            return Measured([], {})
        seconds = time.perf_counter() - started
        for result in results:
            self._append(run_dir, result, snapshot, nimg, seconds, ranks.world)
        values = {name: value for result in results for name, value in result.results.items()}
        listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        values_so_far = _comparable_values(run_dir, self.best.name)
        better = max if self.best.family.higher_is_better else min
        if values_so_far[-1] == better(values_so_far):
            write_atomic(run_dir / BEST_SNAPSHOT, lambda partial: shutil.copyfile(snapshot, partial))
        lines = [f"Metrics:     {listed}  time {format_seconds(seconds)}"]
        return Measured(lines, {f"Metrics/{name}": value for name, value in values.items()})

    def _append(
        self, run_dir: Path, result: MetricResult, snapshot: Path, nimg: int, seconds: float, world: int
    ) -> None:
        line = {
            **result.to_json(),
            "total_time": seconds,
            "total_time_str": format_seconds(seconds),
            "num_gpus": world,
            "snapshot_pkl": snapshot.name,  # the key that official runs use
            "kimg": nimg / 1000,
            "timestamp": time.time(),
        }
        path = _path(run_dir, result.metric)
        if _measured_last(path) == line["kimg"]:  # by a run that was killed before it came to the next metric
            return
        with errors_name(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _path(run_dir: Path, metric: str) -> Path:
    return run_dir / f"metric-{metric}.jsonl"


def _measured_last(path: Path) -> float | None:
    """The kimg of the last line."""
    lines = list(read_lines(path)) if path.is_file() else []
    return float(lines[-1]["kimg"]) if lines else None


def _comparable_values(run_dir: Path, metric: str) -> list[float]:
    """The main value of every snapshot that was measured as the last one was: a continuation may take another reference
    set or detector."""
    lines = list(read_lines(_path(run_dir, metric)))
    conditions = [[line.get(name) for name in _CONDITIONS] for line in lines]
    return [
        next(iter(line["results"].values()))
        for line, condition in zip(lines, conditions, strict=True)
        if condition == conditions[-1]
    ]
