"""A warning that is given once."""

from __future__ import annotations

__all__ = ["Alarm"]


class Alarm:
    """Goes off when something has held `times` times in a row; again only after it no longer held.

    Attributes:
        told: it has gone off, and what it warned of still holds.
    """

    def __init__(self, times: int = 1) -> None:
        self._times, self._held = times, 0
        self.told = False

    def rings(self, holds: bool) -> bool:
        self._held = self._held + 1 if holds else 0
        before, self.told = self.told, self._held >= self._times or (self.told and holds)
        return self.told and not before
