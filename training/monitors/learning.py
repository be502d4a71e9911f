"""A warning during training if the discriminator learns nothing from the teacher."""

from __future__ import annotations

from collections import deque

__all__ = ["LearningMonitor"]

TICKS = 5  # in a row


class LearningMonitor:
    """Follows the fraction explained, and warns when it stays at or below 0."""

    def __init__(self) -> None:
        self._shares: deque[float] = deque(maxlen=TICKS)
        self._told = False

    def note(self, explained: float | None) -> list[str]:
        """Lines for the log: a warning after TICKS ticks at or below 0, repeated only after a recovery."""
        if explained is None or explained != explained:  # no distillation, or a teacher to whom all images are the same
            return []
        self._shares.append(explained)
        nothing = len(self._shares) == TICKS and max(self._shares) <= 0
        lines = []
        if nothing and not self._told:
            lines.append(
                "Warning:     the discriminator has learned nothing from the teacher so far (KD/explained "
                f"{explained:.1%}): a constant predicts as well, so distillation acts as regularisation only. "
                "Try --kd-balance=1, a lower --gamma, or more kimg; "
                "`python -m kd_plugin.probe` says what this teacher knows about these images"
            )
        self._told = nothing
        return lines
