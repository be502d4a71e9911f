"""Which run a command continues. A run is known by what its files contain, not by how their paths were typed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import is_called
from kd_plugin.config.click_flags import plain_flag
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.schema import options_of, to_dict
from kd_plugin.download import sha256_of
from kd_plugin.errors import flag
from kd_plugin.file_kinds import what_it_is
from kd_plugin.prompts.sources import AUTO, ChosenPrompts, read_prompts
from kd_plugin.teachers import split_spec
from kd_plugin.terms.stage_choice import EMBEDDING
from training.checkpoint import load_state, runs_with_state
from training.config import ADA_KIMG, TrainConfig
from training.data.dataset import ImageDataset

__all__ = [
    "CONFIG",
    "LATEST",
    "SavedRun",
    "config_json",
    "content_of",
    "differing_fields",
    "read_config",
    "run_to_continue",
    "state_to_continue",
]

CONFIG = "config.json"  # in the folder of a run
LATEST = "latest"
# Options of the distillation that are newer than some runs, and what those runs did: not today's defaults.
_BEFORE_IT_EXISTED = {"match_on": EMBEDDING, "match_distance": "energy", "match_memory": 0, "critic": 0.0}
# In config.json beside the options: the chosen prompts, for the reader; and what content_of returned.
_PROMPTS, _CONTENT = "kd_prompts_used", "content"


@dataclass(frozen=True)
class SavedRun:
    """What config.json holds: the options; the content of the files that they name, see `content_of`; the prompts that
    were chosen."""

    options: dict[str, Any]
    content: dict[str, str]
    prompts: tuple[str, ...]


def content_of(config: TrainConfig, dataset: ImageDataset) -> dict[str, str]:
    """By option ('kd.' before those of the distillation): equal for equal content, wherever the files lie."""
    teachers = [
        (weight, [_hash_of(part) for part in spec.partition(":")[2].split("+")], spec.partition(":")[0])
        for weight, spec in (split_spec(config.kd.teacher) if config.kd.enabled else [])
    ]
    content = {"data": dataset.source_fingerprint, "kd.teacher": json.dumps(teachers)}
    if config.kd.prompts not in (None, AUTO):
        texts = read_prompts(str(config.kd.prompts))  # not the bytes: line ends and comments may differ
        content["kd.prompts"] = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return content


def _hash_of(name: str) -> str:
    """Of a file or a folder; the name itself if there is none."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return name
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    hashes = [(file.relative_to(path).as_posix(), sha256_of(file)) for file in files]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def config_json(config: TrainConfig, prompts: ChosenPrompts | None, content: Mapping[str, str]) -> str:
    """The text of config.json: every resolved option, the chosen prompts, and the content of the named files."""
    used = {} if prompts is None else {_PROMPTS: prompts.texts}
    return json.dumps({**to_dict(config), **used, _CONTENT: dict(content)}, indent=2)


def read_config(path: str | Path, flag: str = "--config") -> SavedRun:
    """
    Raises:
        UserError: the file is missing or is not a config.json; names `flag`.
    """
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{flag}: '{path}' cannot be read as JSON: {error}{what_it_is(Path(path))}") from error
    if not isinstance(saved, dict) or not saved.keys() & TrainConfig.__dataclass_fields__.keys():
        raise UserError(f"{flag}: '{path}' holds no options; give the config.json of a run{what_it_is(Path(path))}")
    prompts, content = saved.pop(_PROMPTS, []), saved.pop(_CONTENT, {})
    for name, value, kind in ((_PROMPTS, prompts, list), (_CONTENT, content, dict), ("kd", saved.get("kd", {}), dict)):
        if not isinstance(value, kind):
            raise UserError(
                f"{flag}: '{name}' in '{path}' is {value!r}; give the config.json of a run as it was written"
            )
    if "kd" in saved:
        saved["kd"] = _as_it_was(saved["kd"])
    return SavedRun(saved, content, tuple(prompts))


def _as_it_was(kd: Mapping[str, Any]) -> dict[str, Any]:
    """The distillation's options of a run, with those that did not exist yet; of a part of them, as it is."""
    return {**(_BEFORE_IT_EXISTED if "match" in kd else {}), **kd}


def run_to_continue(config: TrainConfig, content: Mapping[str, str], name: str, resume: str | None) -> Path | None:
    """The folder of the run; None: a new run begins.

    Args:
        config: of this command.
        content: of the files that it names, see `content_of`.
        name: what the folder of a new run would be called.
        resume: `latest`, a folder, a snapshot, or None.

    Raises:
        UserError: `latest`, and all runs of this name have other options.
    """
    if resume is not None and resume != LATEST:
        return Path(resume) if Path(resume).is_dir() else None
    others: list[tuple[Path, list[str]]] = []
    for folder in runs_with_state(Path(config.outdir)) if resume == LATEST else []:
        try:
            saved = read_config(folder / CONFIG)
        except UserError:  # one broken folder must not block the others
            continue
        differences = differing_fields(saved.options, config, saved.content, content)
        if not differences:
            return folder
        if is_called(folder, name):
            others.append((folder, differences))
    if others:
        folder, differences = min(others, key=lambda other: len(other[1]))
        raise UserError(
            f"--resume=latest: no run in '{config.outdir}' has these options; '{folder}' was started with different "
            f"ones: {', '.join(differences)}; give the same, or start a new run without --resume"
        )
    return None


def state_to_continue(config: TrainConfig, content: Mapping[str, str], run_dir: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the state in `run_dir` cannot be read, or belongs to another configuration.
    """
    state = load_state(run_dir)
    beside = run_dir / CONFIG
    content_then = read_config(beside).content if beside.is_file() else {}
    differences = differing_fields(state["config"], config, content_then, content)
    if differences:
        raise UserError(
            f"--resume: '{run_dir}' was started with other options: {', '.join(differences)}; "
            f"give the same, or start a new run without --resume"
        )
    return state


# What may change between a run and its continuation without making it another run.
_FREE_TO_CHANGE = frozenset(
    {
        "kimg",
        "tick",
        "snap",
        "snap_keep",
        "outdir",
        "desc",
        "gpus",
        "batch_gpu",
        "precision",
        "tf32",
        "workers",
        "max_nan_steps",
        "device",
        "metrics",
        "best",
        "detector",
        "reference",
        "wandb",
    }
)
_FORMER_DEFAULTS = {"ada_kimg": ADA_KIMG}  # version 0.1 saved the number, where now None stands for it
_FREE_TO_CHANGE_KD = frozenset({"precision"})  # `auto` may measure otherwise today: the run keeps what it had


def differing_fields(
    saved: Mapping[str, Any],
    config: TrainConfig,
    content_then: Mapping[str, str] | None = None,
    content_now: Mapping[str, str] | None = None,
) -> list[str]:
    """'--gamma (10 was saved, 5 was given)' for each difference that makes `config` another run than `saved`.

    Where the content of what an option names is known, then and now (training.resume.content_of), it decides, and not
    how the option was spelled.
    """
    then, today = content_then or {}, content_now or {}
    differences = []
    for owner, spell, prefix, free, old, new in (
        (TrainConfig, plain_flag, "", _FREE_TO_CHANGE | {"kd"}, dict(saved), to_dict(config)),
        (KDConfig, flag, "kd.", _FREE_TO_CHANGE_KD, _as_it_was(saved.get("kd", {})), to_dict(config.kd)),
    ):
        for item in options_of(owner):
            if item.key in free:
                continue
            before, now = old.get(item.key, item.default), new[item.key]  # an option that is newer than the run
            name, key = item.flag_name(spell), prefix + item.key
            if key in then and key in today:
                if then[key] != today[key]:
                    how = f"{before} was saved, {now} was given" if before != now else f"{now} holds something else now"
                    differences.append(f"{name} ({how})")
            elif before != now and not (now is None and before == _FORMER_DEFAULTS.get(item.key)):
                differences.append(f"{name} ({before} was saved, {now} was given)")
    return differences
