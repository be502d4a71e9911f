"""--kd-probe: what this run's discriminator can learn from its teachers, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dnnlib.errors import UserError
from kd_plugin.probe.run import MAX_IMAGES, probe_teacher
from training.session import Session

__all__ = ["probe_lines"]


def probe_lines(
    session: Session, seconds: float, on_message: Callable[[str], None], steps: int | None = None
) -> Iterator[str]:
    """The report on each teacher as lines of text.

    Args:
        session: as it would be trained.
        seconds: for the trials with each teacher.
        on_message: called with a line before each thing that takes time.
        steps: of each trial; None: what the time allows.

    Raises:
        UserError: the run has no teacher.
    """
    if session.kd is None:
        raise UserError("--kd-probe: no teacher was given; give --kd, such as --kd=clip")
    images = torch.cat(list(session.dataset.images(limit=MAX_IMAGES, batch=50))).to(session.device)

    def inputs(shown: Tensor) -> tuple[Tensor, Tensor]:
        """Without labels."""
        return shown, torch.zeros([len(shown), session.dataset.label_dim], device=shown.device)

    batch = session.config.micro_batch
    for teacher in session.kd.teachers:
        report = probe_teacher(
            session.D, teacher, images, inputs=inputs, batch=batch, seconds=seconds, steps=steps, on_message=on_message
        )
        yield from report.lines()
