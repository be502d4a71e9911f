"""A warning during training if the samples lose variety (mode collapse)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["VarietyMonitor", "spread"]

LOST = 0.5  # of the most variety there was


def spread(images: Tensor) -> float:
    """How much [N, C, H, W] images differ: the standard deviation over N, averaged over pixels and channels."""
    return float(images.float().std(dim=0, correction=0).mean())


class VarietyMonitor:
    """Follows the spread of a fixed grid of samples, and warns when much of it is lost."""

    def __init__(self) -> None:
        self.most = 0.0
        self._told = False

    def note(self, images: Tensor) -> list[str]:
        """Lines for the log: a warning when the spread falls below LOST of its maximum, once until it recovers."""
        now = spread(images)
        self.most = max(self.most, now)
        lost = now < LOST * self.most
        lines = []
        if lost and not self._told:
            lines.append(
                f"Warning:     the samples lose variety: their spread is {now / self.most:.0%} of what it was. The "
                "best snapshot is an earlier one. Try more augmentation (--aug=ada, or --diffaugment=color,"
                "translation,cutout), a higher --gamma, a lower --lr"
            )
        self._told = lost
        return lines

    def state_dict(self) -> dict[str, float | bool]:
        return {"most": self.most, "told": self._told}

    def load_state_dict(self, state: dict[str, float | bool]) -> None:
        self.most, self._told = float(state["most"]), bool(state["told"])
