"""--kd-probe: what this run's discriminator could learn from its teachers, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.probe.trial import MOST_IMAGES, probe_teacher
from training.session import Session

__all__ = ["probe_lines"]


def probe_lines(
    session: Session, seconds: float, say: Callable[[str], None], steps: int | None = None
) -> Iterator[str]:
    """The report on each teacher, for people.

    Args:
        session: as it would be trained.
        seconds: for the trials with each teacher.
        say: called with what is being done.
        steps: of each trial; None: as many as the time allows.

    Raises:
        UserError: the run has no teacher.
    """
    if session.kd is None:
        raise UserError("--kd-probe: there is no teacher to ask; give --kd, such as --kd=clip")
    images = torch.cat(list(session.dataset.images(limit=MOST_IMAGES, batch=50))).to(session.device)

    def inputs(shown: Tensor) -> tuple[Tensor, Tensor]:
        """Without labels."""
        return shown, torch.zeros([len(shown), session.dataset.label_dim], device=shown.device)

    batch = session.config.micro_batch
    for teacher in session.kd.teachers:
        report = probe_teacher(
            session.D, teacher, images, inputs=inputs, batch=batch, seconds=seconds, steps=steps, say=say
        )
        yield from report.lines()
