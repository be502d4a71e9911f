"""Running a checkout's own train.py with the flags of the distillation."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from kd_plugin.config.click_flags import TrainCommand, import_option, variant_option
from kd_plugin.config.kd import KDConfig, missing_teacher, variant_values
from kd_plugin.config.schema import from_dict, to_dict
from kd_plugin.errors import KDError, command_line
from kd_plugin.hosts.checkouts import Checkout
from kd_plugin.hosts.rehearsal import outcome, put_on_cpu, shorten
from kd_plugin.hosts.repairs import Repair, mend
from kd_plugin.hosts.state import state_path
from kd_plugin.prompts.sources import PROMPT_IMAGES, choose_prompts, reader_of
from kd_plugin.teachers import load_teachers

__all__ = ["Launch", "launch", "prepare"]

_BATCH = 50
_ORIGINAL = "subprocess_fn_before_kd_plugin"
_LOSS = "kd_plugin.hosts.loss.make"
_TO_BE_CONTINUED = 3  # status of projected-gan after less than a kimg


@dataclass(frozen=True)
class Launch:
    """
    repo:     the folder that holds train.py.
    checkout: which one it is.
    without:  repairs to leave out.
    rehearse: on the CPU, for a few steps.
    keep:     the folder for what a rehearsal writes; None: nothing is kept.
    """

    repo: Path
    checkout: Checkout
    without: tuple[str, ...] = ()
    rehearse: bool = False
    keep: Path | None = None


def prepare(repo: Path, without: Sequence[str] = ()) -> list[Repair]:
    """This process, before anything of the checkout is imported; returns what was mended."""
    if (path := str(repo)) not in sys.path:
        sys.path.insert(0, path)
    _import_from(repo)
    return mend(without)


def _import_from(repo: Path) -> None:
    """Its folders without __init__.py too: Python prefers a package of the same name wherever it finds one, as in the
    folder of an editable install of kd_plugin."""
    for folder in repo.iterdir():
        if folder.name.isidentifier() and any(folder.glob("*.py")) and not (folder / "__init__.py").exists():
            spec = importlib.machinery.ModuleSpec(folder.name, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            sys.modules[folder.name] = importlib.util.module_from_spec(spec)


def launch(plan: Launch, arguments: Sequence[str]) -> None:
    """Run `train.py` of the checkout with `arguments`, among which may be those of the distillation.

    Raises:
        KDError: a package is missing, or a mistake in the options of the distillation.
        SystemExit: as train.py ends.
    """
    edited = plan.checkout.differences(plan.repo)
    click.echo(f"kd_plugin: {plan.checkout.name} in {plan.repo}" + (f" ({', '.join(edited)})" if edited else ""))
    for repair in prepare(plan.repo, plan.without):
        click.echo(f"kd_plugin: repair '{repair.name}': {repair.what}")
    try:
        train: Any = importlib.import_module("train")
    except ModuleNotFoundError as error:
        raise KDError(f"{plan.checkout.name} needs a package that is missing: pip install {error.name}") from None
    session = _Session(plan)
    session.add_flags(train.main)
    if plan.checkout.returns:
        original = getattr(train, plan.checkout.returns)
        setattr(train, plan.checkout.returns, functools.partial(session.complete_returned, original))
    else:
        train.launch_training = functools.partial(session.complete_given, train.launch_training)
    setattr(train, _ORIGINAL, train.subprocess_fn)
    train.subprocess_fn = functools.partial(run_process, plan)
    train.main(args=list(arguments), prog_name="train.py")


def run_process(plan: Launch, *arguments: Any, **keywords: Any) -> None:
    """Train, in a process of its own if there are several GPUs."""
    if not hasattr(sys.modules.get("train"), _ORIGINAL):  # a process that train.py started
        prepare(plan.repo, plan.without)
    train: Any = importlib.import_module("train")
    if plan.rehearse:
        put_on_cpu()
    _find_state(next(value for value in (*arguments, *keywords.values()) if hasattr(value, "loss_kwargs")))
    with command_line():
        getattr(train, _ORIGINAL, train.subprocess_fn)(*arguments, **keywords)


def _find_state(options: Any) -> None:
    """Beside the snapshot that the run continues from: that of --resume, or the one in its folder, which projected-gan
    takes by itself."""
    own = Path(options["run_dir"]) / "network-snapshot.pkl"
    snapshot = own if options.get("restart_every", 0) > 0 and own.is_file() else options.get("resume_pkl")
    kd = options["loss_kwargs"].get("kd")
    if kd is None or snapshot is None or "://" in str(snapshot) or not state_path(snapshot).is_file():
        return
    kd["resume"] = str(state_path(snapshot).resolve())
    click.echo(f"kd_plugin: the distillation continues from {kd['resume']}")


class _Session:
    """Between the command line and the training options.

    Args:
        plan: what to launch.
    """

    def __init__(self, plan: Launch) -> None:
        self._plan = plan
        self._given: dict[str, Any] = {}  # options of KDConfig that were named
        self._variant: str | None = None
        self._imports: tuple[str, ...] = ()

    def add_flags(self, command: click.Command) -> None:
        command.__class__ = TrainCommand
        import_option(variant_option(command))
        assert command.callback is not None
        command.callback = functools.partial(self._called, command.callback)

    def _called(self, original: Callable[..., None], **values: Any) -> None:
        self._variant, self._imports = values.pop("kd_variant"), values.pop("kd_import")
        given = {key.removeprefix("kd_"): values.pop(key) for key in list(values) if key.startswith("kd_")}
        self._given = {key: value for key, value in given.items() if value is not None}
        if not self._plan.rehearse:
            return original(**values)
        with tempfile.TemporaryDirectory() as folder:
            outdir = Path(folder) if self._plan.keep is None else self._plan.keep
            try:
                original(**{**values, "outdir": str(outdir)})
            except SystemExit as end:
                if end.code != _TO_BE_CONTINUED:
                    raise
            if not values.get("dry_run"):
                for line in outcome(max(outdir.iterdir(), key=lambda run_dir: run_dir.stat().st_mtime_ns)):
                    click.echo(f"kd_plugin: {line}")

    def complete_returned(self, original: Callable[..., Any], **values: Any) -> Any:
        description, options = original(**values)
        return self._completed(description, options), options

    def complete_given(self, original: Callable[..., None], c: Any, desc: str, **others: Any) -> None:
        original(c=c, desc=self._completed(desc, c), **others)

    def _completed(self, description: str, options: Any) -> str:
        """Add the distillation to the training options, in place; returns the description of the run."""
        if self._plan.rehearse:
            shorten(options)
        config = self._config()
        if not (config.enabled and config.active_terms):
            click.echo("kd_plugin: nothing is distilled; the official code runs as it is")
            return description
        util: Any = importlib.import_module("dnnlib.util")
        dataset = util.construct_class_by_name(**options["training_set_kwargs"])
        kd = {
            "config": to_dict(config),
            "prompts": self._prompts(config, dataset),
            "shape": [list(dataset.image_shape), dataset.label_dim],
            "imports": list(self._imports),
            "seed": options.get("random_seed", 0),
            "resume": None,  # see _find_state
        }
        loss = options["loss_kwargs"]
        loss.update(base=loss["class_name"], class_name=_LOSS, kd=kd)
        return f"{description}-kd-{''.join(c if c.isalnum() else '-' for c in config.teacher)[:40].strip('-')}"

    def _config(self) -> KDConfig:
        config = from_dict(KDConfig, {**variant_values(self._variant), **self._given}, what="distillation option")
        if problem := missing_teacher(config, self._given, self._variant):
            raise KDError(problem)
        return config

    def _prompts(self, config: KDConfig, dataset: Any) -> list[str] | None:
        """Also reports a teacher that cannot be loaded, before anything is written."""
        device = torch.device("cuda" if torch.cuda.is_available() and not self._plan.rehearse else "cpu")
        teachers = [teacher for _, teacher in load_teachers(config.teacher, device, config.precision, config.control)]
        if not config.terms_that_need("texts"):
            return None
        chosen = choose_prompts(
            reader_of(teachers),
            file=config.prompts,
            class_names=None,
            dataset_name=dataset.name,
            images=_images(dataset, device),
            template=config.template,
        )
        click.echo(f"kd_plugin: {chosen.source}: {'; '.join(chosen.texts)}")
        return list(chosen.texts)


def _images(dataset: Any, device: torch.device) -> Iterator[Tensor]:
    """Batches [N, C, H, W] in [-1, 1] of an official dataset."""
    count = min(len(dataset), PROMPT_IMAGES)
    for start in range(0, count, _BATCH):
        pixels = [torch.as_tensor(dataset[k][0]) for k in range(start, min(start + _BATCH, count))]
        yield torch.stack(pixels).to(device).float() / 127.5 - 1
