"""A warning during training if the samples lose variety (mode collapse)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from training.monitors.alarm import Alarm

__all__ = ["VarietyMonitor", "spread", "spread_of"]

LOST = 0.5  # of the most variety there was
COLLAPSED = 0.2  # of that of the real images; runs that learn have more than 0.3 from the first snapshot on


def spread(images: Tensor) -> float:
    """How much [N, C, H, W] images in [-1, 1] differ to the eye: the standard deviation over N, averaged over pixels
    and channels. What lies outside is shown clipped, so it counts as that."""
    return float(images.float().clamp(-1, 1).std(dim=0, correction=0).mean())


def spread_of(batches: Iterable[Tensor]) -> float:
    """The same of images that come in batches: at 1024 pixels those of a grid are a gigabyte."""
    count, total, squares = 0, torch.zeros([]), torch.zeros([])
    for images in batches:
        values = images.clamp(-1, 1).double()
        count, total, squares = count + len(images), total + values.sum(0), squares + values.square().sum(0)
    mean = total / count
    return float((squares / count - mean.square()).clamp(min=0).sqrt().mean())


class VarietyMonitor:
    """Follows the spread of a fixed grid of samples, and warns when much of it is lost, or was never there.

    Args:
        of_reals: the spread of the training images.
    """

    def __init__(self, of_reals: float) -> None:
        self.of_reals, self.most = of_reals, 0.0
        self._lost, self._collapsed = Alarm(), Alarm()

    def note(self, images: Tensor) -> list[str]:
        """Lines for the log: a warning when the spread falls below COLLAPSED of that of the training images, or below
        LOST of its own maximum, once until it recovers."""
        now = spread(images)
        self.most = max(self.most, now)
        lines = []
        collapsed = now < COLLAPSED * self.of_reals
        if self._collapsed.rings(collapsed):
            lines.append(
                "Warning:     the samples are almost the same image (collapse): their spread is "
                f"{now / self.of_reals:.0%} of that of the training images. Try a lower --lr, a higher --gamma, "
                "--kd-match=1, and another --seed; look at the newest fakes*.png"
            )
        if self._lost.rings(now < LOST * self.most and not collapsed):
            lines.append(
                f"Warning:     the samples lose variety: their spread is {now / self.most:.0%} of what it was. The "
                "best snapshot is an earlier one. Try more augmentation (--aug=ada, or --diffaugment=color,"
                "translation,cutout), a higher --gamma, a lower --lr"
            )
        return lines

    def state_dict(self) -> dict[str, float | bool]:
        return {"most": self.most, "told": self._lost.told, "told_collapsed": self._collapsed.told}

    def load_state_dict(self, state: dict[str, float | bool]) -> None:
        self.most = float(state["most"])
        self._lost.told, self._collapsed.told = bool(state["told"]), bool(state.get("told_collapsed", False))
