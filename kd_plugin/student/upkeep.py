"""What training loops do to D and forget to do to the heads, which are no part of it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from kd_plugin.optimizer_steps import stop_watching, watch_steps

__all__ = ["Upkeep"]

_PATIENCE = 4  # steps of optimisers that train D and not the heads


class Upkeep:
    """Clears the heads' gradients where the loop clears only D's, as in `D.zero_grad()`, and warns once if no optimiser
    trains the heads.

    Args:
        heads: their parameters.
        discriminator: D.
        reference: a parameter of D that every backward pass of D's loss reaches after the heads; None: not yet known.
    """

    def __init__(
        self,
        heads: Iterable[nn.Parameter],
        discriminator: nn.Module,
        reference: Callable[[], nn.Parameter | None],
    ) -> None:
        self._heads, self._discriminator, self._reference = list(heads), discriminator, reference
        self._steps = 0
        self._watches, self._settled = False, False
        for parameter in self._heads:
            parameter.register_hook(functools.partial(self._arriving, parameter))  # type: ignore[no-untyped-call]

    def _arriving(self, parameter: nn.Parameter, _gradient: Tensor) -> None:
        """A gradient is about to be added to a head's."""
        if not (self._settled or self._watches):
            self._watches = True
            watch_steps(self)
        reference = self._reference()
        if parameter.grad is None or reference is None:
            return
        if reference.grad is None:
            parameter.grad = None
        else:  # zeros are cleared gradients; asking for them on the CPU would stall every step
            parameter.grad = parameter.grad * reference.grad.any()

    def before_step(self, optimizer: Optimizer) -> None:
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if any(id(parameter) in trained for parameter in self._heads):
            self._settle()
        elif any(id(parameter) in trained for parameter in self._discriminator.parameters()):
            self._steps += 1
            if self._steps == _PATIENCE:
                self._settle()
                warnings.warn(
                    f"D made {_PATIENCE} steps, but no optimiser trains the parameters of the distiller (its heads): "
                    "opt_d.add_param_group({'params': kd.parameters()})",
                    stacklevel=2,
                )

    def _settle(self) -> None:
        self._settled = True
        stop_watching(self)
