"""Warnings during training if augmentation is as strong as it can be, or if distillation outweighs the GAN."""

from __future__ import annotations

from collections.abc import Mapping

from torch_utils.stats import Stat
from training.monitors.alarm import Alarm

__all__ = ["StrengthMonitor"]

TICKS = 3  # in a row
# Gradient of the distillation, as a multiple of the adversarial one. D keeps no more than its features from being the
# GAN's own; G's images may well be pulled harder by matching: up to 12 times in runs that gain (studies/notebook.md).
MOST_ON_D, MOST_ON_G = 3.0, 30.0


class StrengthMonitor:
    """Follows ADA's p and the gradient ratios of the distillation.

    Args:
        adaptive: p is ADA's, and not the user's.
    """

    def __init__(self, adaptive: bool) -> None:
        self._adaptive = adaptive
        self._augmentation, self._on_d, self._on_g = Alarm(), Alarm(TICKS), Alarm(TICKS)

    def note(self, stats: Mapping[str, Stat]) -> list[str]:
        """Lines for the log, of a tick; each warning is repeated only after a recovery."""
        p, on_d, on_g = (
            stats[name].mean if name in stats else 0.0
            for name in ("Progress/augment", "Loss/KD/grad_ratio", "Loss/KD/grad_ratio_G")
        )
        lines = []
        if self._augmentation.rings(self._adaptive and p >= 1):
            lines.append(
                "Warning:     ADA's p has reached 1: D is memorising the images, and augmentation cannot be made "
                "stronger. Try --diffaugment=color,translation,cutout instead, a higher --gamma, --lecam=0.3, "
                "--freezed with a pretrained --resume, or more images; the best snapshot may be an earlier one"
            )
        if self._on_d.rings(on_d > MOST_ON_D):
            lines.append(
                f"Warning:     distillation outweighs the adversarial loss at D's feature ({on_d:.1f} times its "
                "gradient). Try --kd-balance=0.3, which scales it, or lower weights (--kd-agkd, --kd-cgkd)"
            )
        if self._on_g.rings(on_g > MOST_ON_G):
            lines.append(
                f"Warning:     the teacher's terms outweigh the adversarial loss at G's images ({on_g:.1f} times its "
                "gradient). Try --kd-match-pull=0 and a lower --kd-match, or a lower weight of what else acts on G"
            )
        return lines
