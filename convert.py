"""Turn network files into each other: official pickles into snapshots and back, ONNX, torch.export; or describe one.

\b
    python convert.py network-snapshot-025000.pkl
    python convert.py metfaces --out=metfaces.safetensors
    python convert.py network-snapshot-000300.safetensors --to=official --repo=stylegan2-ada-pytorch
    python convert.py network-snapshot-000300.safetensors --to=onnx
    python convert.py network-snapshot-000300.safetensors --info

FILE is a snapshot of train.py; a pickle of stylegan2-ada-pytorch, its DiffAugment fork, stylegan3 (StyleGAN2
configuration) or the TensorFlow releases of StyleGAN2, which is read without running anything in it; or the name
or address of a published one: {published}.
"""

from __future__ import annotations

import dnnlib.threads  # noqa: F401  # first: OpenMP reads its settings when torch is imported

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dnnlib.errors import UserError
from dnnlib.files import require_free, require_writable
from kd_plugin.config.click_flags import GroupedCommand, add_flags, code_option, options_from
from kd_plugin.config.schema import option
from training.checkpoint import Snapshot, load_snapshot, save_snapshot
from training.cli import arguments_of, from_python, function, script
from training.export import EXPORTS
from training.official.published import PUBLISHED
from training.official.read import ROLES
from training.official.write import require_checkout, write_official
from training.report.network_info import describe_networks

SNAPSHOT = "snapshot"
_HELP = (__doc__ or "").format(published=", ".join(PUBLISHED))
SUFFIXES = {SNAPSHOT: ".safetensors", "official": ".pkl", **{name: suffix for name, (suffix, _) in EXPORTS.items()}}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of this command."""

    to: str | None = option(
        None,
        "snapshot: for the programs here; official: for the official ones, needs --repo; onnx and torch-export: G_ema, "
        "for programs without this code",
        choices=tuple(SUFFIXES),
        shown_default=SNAPSHOT,
        group="Conversion",
    )
    out: str | None = option(
        None, "The file to write", metavar="FILE", shown_default="FILE's name with another ending, in this folder"
    )
    repo: str | None = option(None, "The checkout whose classes --to=official uses; its code is run", metavar="DIR")
    info: bool = option(False, "Write nothing; print what FILE holds")


@click.command(cls=GroupedCommand, help=_HELP, context_settings={"max_content_width": 120})
@click.argument("file", metavar="FILE")
@add_flags(Options)
@code_option
@script
def main(file: str, **flags: Any) -> None:
    options = options_from(Options, flags)
    if options.info:
        for flag, given in (("--to", options.to), ("--out", options.out), ("--repo", options.repo)):
            if given is not None:
                raise UserError(f"{flag}: --info writes nothing; leave one of them out")
        for line in describe_networks(_networks_of(file, None)):
            click.echo(line)
        return
    out, snapshot = _convert(file, options)
    click.echo(
        f"{out} ({out.stat().st_size / 2**20:.1f} MB) holds {', '.join(sorted(snapshot.networks, key=ROLES.index))}"
    )
    for role, reason in snapshot.meta.get("source", {}).get("left_out", {}).items():
        click.echo(f"{role} is left out: {reason}")


@function(lambda: {"FILE": "file", **arguments_of(Options)})
def convert(*, file: str, **options: Any) -> Path:
    """What the command does, from Python.

    Args:
        file: the network, see above.
        options: the command's flags, with _ for -; see `Options`. `info` has no effect.

    Returns:
        The file that was written.

    Raises:
        UserError: as the command; names the argument.
        RunFailed: not enough memory, or the file cannot be written.
    """
    return _convert(file, from_python(Options, options))[0]


def _convert(file: str, options: Options) -> tuple[Path, Snapshot]:
    """The file that was written, and what it holds."""
    to = options.to or SNAPSHOT
    if (options.repo is None) == (to == "official"):
        raise UserError(
            "--to=official: give --repo=DIR, a checkout of the official code"
            if options.repo is None
            else f"--repo: --to={to} needs no checkout; leave it out"
        )
    out = Path(options.out or f"{Path(file.rpartition('/')[2]).stem}{SUFFIXES[to]}")
    require_free(out, "--out")
    if out.exists():
        raise UserError(f"--out: '{out}' exists already; give another name, or delete it")
    if out.suffix != SUFFIXES[to]:
        raise UserError(f"--out: '{out}' was given, with --to={to} its name must end with {SUFFIXES[to]}")
    if options.repo is not None:
        require_checkout(Path(options.repo))
    exported = to in EXPORTS
    snapshot = _networks_of(file, ("G_ema",) if exported else ROLES if to == "official" else None)
    require_writable(out.parent, flag="--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if exported:
        EXPORTS[to][1](snapshot.G_ema, out)
    elif options.repo is not None:
        write_official(snapshot, Path(options.repo), out)
    else:
        save_snapshot(out, snapshot.networks, snapshot.meta)
    return out, snapshot


def _networks_of(file: str, roles: Sequence[str] | None) -> Snapshot:
    """
    Args:
        file: see above.
        roles: which networks; None: all that it holds.
    """
    return load_snapshot(file, roles=roles, flag="FILE")


if __name__ == "__main__":
    main()
