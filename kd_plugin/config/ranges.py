"""The numbers that an option takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ABOVE_0", "ANY", "AT_LEAST_0", "AT_LEAST_1", "FRACTION", "SEED", "SHARE", "WEIGHT", "Range"]

# What no option needs, and what would overflow somewhere: in a number of images, an index, a sum.
LARGEST = {int: 2.0**31 - 1, float: 1e15}


@dataclass(frozen=True)
class Range:
    """From `low` (without it, if `above`) to `high`; never NaN or infinity, and never beyond LARGEST.

    noun: what such a number is, for messages.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    noun: str = "number"

    def problem(self, value: float) -> str:
        """What the value must be instead: 'at least 0'; "" if it is in the range."""
        inside = self.low <= value <= self.high and not (self.above and value == self.low) and abs(value) < math.inf
        largest = LARGEST[type(value)]
        if inside and abs(value) > largest:
            return f"from {max(-largest, self.low):.16g} to {largest:.16g}"
        return "" if inside else self.words

    @property
    def words(self) -> str:
        """'at least 0', 'above 0', 'from 0 to 1', or 'finite'."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"from {self.low:.16g} to {self.high:.16g}"
        if math.isfinite(self.low):
            return f"{'above' if self.above else 'at least'} {self.low:.16g}"
        return f"at most {self.high:.16g}" if math.isfinite(self.high) else "finite"


ANY = Range()
ABOVE_0, AT_LEAST_0, AT_LEAST_1 = Range(0, above=True), Range(0), Range(1)
SHARE = Range(0, 1, noun="probability")
WEIGHT, FRACTION = Range(0, noun="weight"), Range(0, noun="fraction")
SEED = Range(0, 2**32 - 1, noun="seed")
