"""The description of a run at its start: what was chosen, and which options were adjusted."""

from __future__ import annotations

from dnnlib.threads import CPUS_IN_USE, busy_note
from kd_plugin.teachers.protocol import HasRemark, KnowsItsWords
from training.data.dataset import ImageDataset
from training.session import Session

__all__ = ["describe", "repetitions", "skipped"]

FEW_IMAGES = 50  # with fewer, copies are likely: noted at the start


def describe(session: Session) -> list[str]:
    """The choices of a run, one line each."""
    config, kd = session.config, session.config.kd
    g, d = (sum(parameter.numel() for parameter in network.parameters()) / 1e6 for network in (session.G, session.D))
    side, mirrored = session.dataset.resolution, ", each also mirrored" if session.dataset.mirror else ""
    augment = config.diffaugment if config.aug == "noaug" else f"{config.aug} {config.augpipe}"
    lines = [
        f"Images:      {session.dataset.used} of {side}x{side}{mirrored} ({config.data})",
        f"Labels:      {session.dataset.label_note or 'none'}",
        f"Preset:      {config.cfg}: {config.kimg:g} kimg, batch {config.batch}, gamma {config.gamma:g}",
        f"Networks:    G {g:.1f} M and D {d:.1f} M parameters, on {session.device}, {_computing(session)}",
        f"Augment:     {augment}",
        *_remarks(session),
        *(f"Note:        {note}" for note in [busy_note(CPUS_IN_USE)] if note and session.device.type == "cpu"),
        f"Schedule:    a log line every {config.tick:g} kimg, images and a snapshot every "
        f"{config.tick * config.snap:g} kimg and at the end; a forecast follows",
    ]
    if session.monitors.overfitting is not None:
        lines.append(f"Held out:    {config.holdout} images, for Overfit/gap")
    if session.monitors.metrics is not None:
        lines.append(f"Metrics:     {session.monitors.metrics.describe()}")
    if session.kd is not None:
        lines.append(
            f"Teacher:     {config.kd.teacher}, "
            f"{', '.join(f'{term.name} {term.weight:g}' for term in session.terms_info) or 'no term'}, "
            f"view {'clean' if kd.view == 'auto' else kd.view}, "
            f"student {kd.layer}, norm {kd.norm}, {kd.precision}"
        )
        lines += [f"             {t.name}: its parts are {', '.join(t.parts)}" for t in session.terms_info if t.parts]
        lines += [
            f"             {t.name}: {t.remark}" for t in session.kd.teachers if isinstance(t, HasRemark) and t.remark
        ]
    if session.prompts is not None:
        lines.append(f"Prompts:     {session.prompts.source}")
        lines.extend(f"             {text}" for text in session.prompts.texts)
    return lines


def skipped(dataset: ImageDataset, what: str = "other files") -> str:
    """Of `dataset.skipped`, in words."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in dataset.skipped.most_common(6))
    return f"{dataset.skipped.total()} {what} skipped ({kinds})"


def repetitions(dataset: ImageDataset) -> str:
    """Of `dataset.repeated`, in words."""
    (name, earlier), count = dataset.repeated[0], len(dataset.repeated)
    return (
        f"{count} of the {dataset.used} images repeat another one pixel by pixel, such as '{name}' ('{earlier}'); they "
        "weigh double in training, and shift KID and the measures of copies"
    )


def _computing(session: Session) -> str:
    low = session.config.precision
    if low == "fp32" or not session.D.low_precision_blocks():
        return "fp32"
    return f"{low} at the top {session.config.num_fp16_res} resolutions"


def _remarks(session: Session) -> list[str]:
    """What was given, but is used otherwise than one might think."""
    config, dataset, remarks = session.config, session.dataset, []
    if note := session.D.batch_note(config.micro_batch):
        remarks.append(f"Note:        {note}")
    if dataset.skipped:
        remarks.append(f"Note:        {skipped(dataset)}")
    if dataset.fits_in_memory and dataset.repeated:
        remarks.append(f"Note:        {repetitions(dataset)}")
    if dataset.used < FEW_IMAGES:
        remarks.append(
            f"Note:        {dataset.used} images are very few: expect copies of them; compare fakes*.png with "
            "reals.png, and add images if you can"
        )
    bank = None if session.kd is None else session.kd.prompts
    teacher = None if bank is None else bank.teacher
    if (
        isinstance(teacher, KnowsItsWords)
        and session.prompts
        and (words := teacher.unknown_words(session.prompts.texts))
    ):
        remarks.append(f"Note:        the teacher does not know the words {', '.join(words)} and treats them all alike")
    return remarks
