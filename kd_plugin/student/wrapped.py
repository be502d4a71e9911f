"""A discriminator inside its wrappers: DistributedDataParallel, DataParallel, torch.compile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from kd_plugin.errors import KDError

__all__ = ["Wrapped", "device_of", "inside"]


@dataclass(frozen=True)
class Wrapped:
    """
    module:   D itself.
    entrance: whose call shows D's input.
    compiled: torch.compile is at work.
    """

    module: nn.Module
    entrance: nn.Module
    compiled: bool

    @classmethod
    def of(cls, discriminator: nn.Module) -> Wrapped:
        """
        Raises:
            KDError: not a module, or DataParallel over several devices.
        """
        if not isinstance(discriminator, nn.Module):
            several = isinstance(discriminator, list | tuple | dict)
            advice = "attach() once to each discriminator, and add their terms" if several else "give the module itself"
            raise KDError(f"discriminator: got a {type(discriminator).__name__}, expected an nn.Module; {advice}")
        compiled: nn.Module | None = None
        while True:
            if isinstance(discriminator, DistributedDataParallel):
                discriminator = discriminator.module
            elif isinstance(discriminator, DataParallel):
                if len(discriminator.device_ids) > 1:
                    raise KDError(
                        f"discriminator: in DataParallel over {len(discriminator.device_ids)} devices its layers are "
                        "copied for each call and cannot be tapped; use DistributedDataParallel, or one device"
                    )
                discriminator = discriminator.module
            elif isinstance(inner := getattr(discriminator, "_orig_mod", None), nn.Module):
                compiled = discriminator if compiled is None else compiled  # hooks of the wrapper run uncompiled
                discriminator = inner
            else:
                break
        in_place = getattr(discriminator, "_compiled_call_impl", None) is not None  # D.compile()
        entrance = discriminator if compiled is None else compiled
        return cls(discriminator, entrance, in_place or compiled is not None)

    @property
    def device(self) -> torch.device:
        """Where D is."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device


def device_of(discriminator: nn.Module) -> torch.device:
    """Where D is."""
    return Wrapped.of(discriminator).device


def inside(discriminator: nn.Module) -> nn.Module:
    """D without its wrappers."""
    return Wrapped.of(discriminator).module
