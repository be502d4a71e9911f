"""Progress of a run: the numbers of a tick, its line in the log, and a forecast of the end."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence

import torch

from dnnlib.text import format_seconds
from kd_plugin import TermInfo
from torch_utils.stats import Stat
from training.session import Session

__all__ = ["forecast", "tick_line", "tick_stats"]


def forecast(session: Session, seconds_per_image: float) -> str:
    """The expected times of the first results and of the end, from the speed of the first steps."""
    total, snap_nimg = session.config.kimg * 1000, session.config.tick * 1000 * session.config.snap
    first = min(session.nimg - session.nimg % snap_nimg + snap_nimg, total)
    wait, whole = ((nimg - session.nimg) * seconds_per_image for nimg in (first, total))
    return (
        f"Forecast:    {seconds_per_image * 1000:.1f} sec/kimg; first images and snapshot at {first / 1000:g} kimg in "
        f"about {format_seconds(wait)}, the end at {total / 1000:g} kimg in about {format_seconds(whole)}"
    )


def tick_stats(session: Session, nimg: int, seconds: float, data_seconds: float) -> dict[str, Stat]:
    """The line of stats.jsonl for a tick of `nimg` images."""
    context = session.context
    numbers: dict[str, float | Stat] = {
        "Progress/tick": session.tick,
        "Progress/kimg": session.nimg / 1000,
        "Timing/sec_per_kimg": seconds / max(nimg, 1) * 1000,
        "Timing/sec_per_tick": seconds,
        "Timing/data_fraction": data_seconds / seconds,
        # ru_maxrss is in bytes on macOS and in KiB elsewhere.
        "Resources/peak_mem_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**30 if sys.platform == "darwin" else 2**20),
    }
    if nan_steps := context.nans.drain():
        numbers["Progress/nan_steps"] = nan_steps
    if session.monitors.overfitting is not None:
        numbers |= session.monitors.overfitting.stats(session.G, session.D, context.latents, session.nimg)
    if session.device.type == "cuda":
        numbers["Resources/peak_gpu_mem_gb"] = torch.cuda.max_memory_allocated(session.device) / 2**30
        torch.cuda.reset_peak_memory_stats(session.device)
    if session.augmentation.pipe is not None:
        numbers["Progress/augment"] = float(session.augmentation.pipe.p)
    if session.kd is not None:
        numbers["Timing/kd_fraction"] = context.kd_watch.drain() / seconds
        for name, share in session.kd.explained().items():
            numbers["KD/explained" if name == "total" else f"KD/explained/{name}"] = share
    measured = {name: value if isinstance(value, Stat) else Stat(1, value) for name, value in numbers.items()}
    return measured | context.stats.drain(session.ranks)


Column = tuple[str, str, str]  # label, name in stats.jsonl, format


def tick_line(numbers: Mapping[str, Stat], terms: Sequence[TermInfo] = ()) -> str:
    """One line of the log: the columns that have a value, with distillation's terms and, in brackets, their parts."""
    parts = {f"Loss/KD/{term.name}": [f"Loss/KD/{name}" for name in term.part_names.values()] for term in terms}
    shown = []
    for label, name, form in _columns(terms):
        if name in numbers:
            values = [f"{numbers[part].mean:{form}}".strip() for part in parts.get(name, ()) if part in numbers]
            shown.append(f"{label} {numbers[name].mean:{form}}" + (f"({' '.join(values)})" if values else ""))
    return "  ".join([*shown, f"time {format_seconds(numbers['Timing/sec_per_tick'].mean)}"])


def _columns(terms: Sequence[TermInfo]) -> list[Column]:
    of_d, of_g = (
        [(term.label, f"Loss/KD/{term.name}", term.log_format) for term in terms if side in term.sides]
        for side in ("D", "G")
    )
    return [
        ("tick", "Progress/tick", "<4.0f"),
        ("kimg", "Progress/kimg", "<8.1f"),
        ("sec/kimg", "Timing/sec_per_kimg", "<7.2f"),
        ("D(real)", "Loss/scores/real", "<+6.2f"),
        ("D(fake)", "Loss/scores/fake", "<+6.2f"),
        *of_d,
        ("grad_ratio", "Loss/KD/grad_ratio", "<6.3f"),
        *of_g,
        ("grad_ratio_G", "Loss/KD/grad_ratio_G", "<6.3f"),
        ("gap", "Overfit/gap", "<+5.2f"),
        ("explained", "KD/explained", "<6.1%"),
        ("held out", "KD/explained_holdout", "<6.1%"),
        ("kd time", "Timing/kd_fraction", "<5.1%"),
        ("augment", "Progress/augment", "<6.3f"),
        ("NaN steps", "Progress/nan_steps", "<4.0f"),
        ("GPU GB", "Resources/peak_gpu_mem_gb", "<6.2f"),
    ]
