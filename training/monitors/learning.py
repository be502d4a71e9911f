"""A warning during training if the discriminator learns nothing from the teacher."""

from __future__ import annotations

from training.monitors.alarm import Alarm

__all__ = ["LearningMonitor"]

TICKS = 5  # in a row


class LearningMonitor:
    """Follows the fraction explained, and warns when it stays at or below 0."""

    def __init__(self) -> None:
        self._nothing = Alarm(TICKS)

    def note(self, explained: float | None) -> list[str]:
        """Lines for the log: a warning after TICKS ticks at or below 0, repeated only after a recovery."""
        if explained is None or explained != explained:  # no distillation, or a teacher to whom all images are the same
            return []
        if not self._nothing.rings(explained <= 0):
            return []
        return [
            "Warning:     the discriminator has learned nothing from the teacher so far (KD/explained "
            f"{explained:.1%}): a constant predicts as well, so distillation acts as regularisation only. "
            "Try --kd-balance=1, a lower --gamma, or more kimg; "
            "`python -m kd_plugin.probe` says what this teacher knows about these images"
        ]
