"""Options that a user gave and that change nothing in the run: a mistake that no result would show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dnnlib.errors import UserError
from kd_plugin.config.click_flags import plain_flag
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import options_of
from kd_plugin.errors import flag
from training.config import TrainConfig
from training.networks import MODELS

__all__ = ["require_effect"]

Condition = Callable[[TrainConfig], bool]

# Options, by what they depend on: the option that decides, and what to give.
_DEPENDENT: tuple[tuple[tuple[str, ...], str, Condition, str], ...] = (
    (("augpipe", "p"), "aug", lambda run: run.aug != "noaug", "--aug=ada or --aug=fixed"),
    (("target", "ada_kimg"), "aug", lambda run: run.aug == "ada", "--aug=ada"),
    (("r1_every",), "gamma", lambda run: run.gamma > 0, "--gamma above 0"),
    (("pl_every",), "pl_weight", lambda run: run.pl_weight > 0, "--pl-weight above 0"),
    (("best", "detector", "reference"), "metrics", lambda run: run.metrics != "none", "--metrics"),
)


def require_effect(config: TrainConfig, given: Mapping[str, Any], kd_given: Mapping[str, Any]) -> None:
    """Where the option that decides was given too, as in a script that runs a baseline, nothing is said; the size of
    another architecture is always refused.

    Args:
        config: of the run.
        given, kd_given: the fields of TrainConfig and of KDConfig that the user named.

    Raises:
        UserError: names the first such option, and what to give with it.
    """
    for names, decides, has_effect, advice in _DEPENDENT:
        for name in names:
            if name in given and decides not in given and not has_effect(config):
                raise UserError(_message(plain_flag(name), advice))
    used = MODELS[config.model].options
    for other in MODELS:
        for name in sorted((MODELS[other].options - used) & given.keys()):
            raise UserError(_message(plain_flag(name), f"--model={other}"))
    if not config.kd.enabled:
        return
    for item in options_of(KDConfig):
        term = item.path[1] if len(item.path) > 1 else None
        if term is not None and item.key in kd_given and term not in kd_given and not config.kd.weights[term]:
            raise UserError(_message(flag(item.key), f"{flag(term)} above 0"))


def _message(option: str, advice: str) -> str:
    return f"{option} has no effect in this run; give {advice}, or leave {option} out"
