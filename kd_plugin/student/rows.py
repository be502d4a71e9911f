"""Which images of a capture block are real and which are generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_plugin.errors import CaptureError, nearest
from kd_plugin.types import ROLES, Role

__all__ = ["Roles", "Rows"]

Roles = Role | Sequence[Role] | Mapping[Role, int]


@dataclass(frozen=True)
class Rows:
    """The roles of the rows that D is called with, in their order.

    sizes: how many rows of a call each has; None: equally many.
    """

    roles: tuple[Role, ...]
    sizes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, roles: Roles) -> Rows:
        """
        Raises:
            CaptureError: an unknown role, or one twice.
        """
        sizes = tuple(roles.values()) if isinstance(roles, Mapping) else None
        names: tuple[Role, ...] = (roles,) if isinstance(roles, str) else tuple(roles)
        for name in names:
            if name not in ROLES:
                raise CaptureError(f"unknown role '{name}'{nearest(str(name), ROLES)}")
        if not names or len(set(names)) < len(names):
            raise CaptureError(f"capture({list(names)}): give 'real', 'fake', or both in the order of D's rows")
        return cls(names, sizes)

    def split(self, rows: Tensor) -> dict[Role, Tensor]:
        """The rows of each role.

        Raises:
            CaptureError: they cannot be divided like this.
        """
        if len(self.roles) == 1 and self.sizes is None:
            return {self.roles[0]: rows}
        sizes = self.sizes or (1,) * len(self.roles)
        times, left_over = divmod(len(rows), sum(sizes))
        if left_over or not times:
            how = "equal parts" if self.sizes is None else " + ".join(map(str, sizes))
            raise CaptureError(
                f"capture: {len(rows)} rows cannot be divided into {' and '.join(self.roles)} as {how}; give the "
                "numbers, as in capture({'fake': len(fake), 'real': len(real)})"
            )
        parts = torch.split(rows, [size * times for size in sizes])
        return dict(zip(self.roles, parts, strict=True))
