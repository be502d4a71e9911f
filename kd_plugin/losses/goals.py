"""Where does the generator's diversity term end? Each goal turns what the teacher says of both sets into a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from kd_plugin.losses.energy import energy_distance

__all__ = ["GOALS", "BothSets"]


@dataclass(frozen=True)
class BothSets:
    """What the teacher says of N fakes, with gradient, and of M real images.

    fake, real:              embeddings, [N, E] and [M, E].
    fake_rows, real_rows:    correlations with the prompts, [N, P] and [M, P], of unit length.
    fake_alike, real_alike:  mean cosine of two rows of one set; of the fakes, it is the paper's diversity term.
    """

    fake: Tensor
    real: Tensor
    fake_rows: Tensor
    real_rows: Tensor
    fake_alike: Tensor
    real_alike: Tensor


def reals(both: BothSets) -> Tensor:
    """0 as soon as fakes differ as much as the real images."""
    return (both.fake_alike - both.real_alike).relu()


def match(both: BothSets) -> Tensor:
    """Until the mean correlations are those of the real images: the squared distance of the means, unbiased."""
    return both.fake_alike - 2 * both.fake_rows.mean(dim=0) @ both.real_rows.mean(dim=0) + both.real_alike


def energy(both: BothSets) -> Tensor:
    """Until both sets of embeddings have one distribution; see `energy_distance`."""
    return energy_distance(both.fake, both.real)


GOALS: Mapping[str, Callable[[BothSets], Tensor]] = {"reals": reals, "match": match, "energy": energy}
