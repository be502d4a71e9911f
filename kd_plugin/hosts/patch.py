"""Give the train.py of an official StyleGAN checkout the --kd-* flags.

\b
    python -m kd_plugin.hosts.patch --repo=stylegan2-ada-pytorch              adds one line to its train.py
    python -m kd_plugin.hosts.patch --repo=stylegan2-ada-pytorch --check      says what it would do
    python -m kd_plugin.hosts.patch --repo=stylegan2-ada-pytorch --reverse    removes the line

Then `python train.py --kd=clip ...` does in the checkout what `python -m kd_plugin.hosts` does without changing a file:
for job scripts, and wherever only train.py can be started.
"""

from __future__ import annotations

import ast
from pathlib import Path

from kd_plugin.errors import KDError
from kd_plugin.files import write_whole
from kd_plugin.hosts.checkouts import ADDED, recognise, without_added
from kd_plugin.programs import ends_with_message, require_packages

__all__ = ["main"]


def _is_patched(repo: Path) -> bool:
    """Whether its train.py has the line.

    Raises:
        KDError: the line was edited, or stands there several times.
    """
    found = {k: line for k, line in enumerate(_read(repo).splitlines(), 1) if b"kd_plugin.hosts.patched" in line}
    if found and list(found.values()) != [ADDED]:
        where = " and ".join(map(str, found))
        raise KDError(f"--repo={repo}: train.py line {where} is not as a patch adds it; remove it and try again")
    return bool(found)


def _add(repo: Path) -> int:
    """Add the line; returns its number. The rest of the file stays as it is, its line ends too.

    Raises:
        KDError: train.py is not Python that can be read.
    """
    content = _read(repo)
    lines = content.splitlines(keepends=True)
    before = _first_statement(repo, content)
    ending = b"\r\n" if lines[before - 1].endswith(b"\r\n") else b"\n"
    _write(repo, b"".join([*lines[: before - 1], ADDED, ending, *lines[before - 1 :]]))
    return before


def _first_statement(repo: Path, content: bytes) -> int:
    """The line of the first statement that is neither the docstring nor an import from __future__."""
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError) as error:
        raise KDError(f"--repo={repo}: train.py cannot be read as Python: {error}") from None
    for statement in body:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (docstring or future):
            return statement.lineno
    raise KDError(f"--repo={repo}: train.py is empty")


def _read(repo: Path) -> bytes:
    try:
        return (repo / "train.py").read_bytes()
    except OSError as error:
        raise KDError(f"--repo={repo}: train.py cannot be read: {error.strerror}") from None


def _write(repo: Path, content: bytes) -> None:
    try:
        write_whole(repo / "train.py", content)
    except OSError as error:
        raise KDError(f"--repo={repo}: train.py cannot be written: {error.strerror}") from None


def main(arguments: list[str] | None = None) -> None:
    require_packages("kd_plugin.hosts.patch")
    import click

    @click.command(help=__doc__)
    @click.option("--repo", required=True, metavar="PATH", help="The checkout: the folder that holds train.py")
    @click.option("--check", is_flag=True, help="Change nothing; say what would be done")
    @click.option("--reverse", is_flag=True, help="Remove the line again")
    @click.option("--force", is_flag=True, help="Also patch one that is edited or another commit")
    def command(repo: str, check: bool, reverse: bool, force: bool) -> None:
        with ends_with_message():
            click.echo(_outcome(Path(repo), check, reverse, force))

    command(arguments)


def _outcome(repo: Path, check: bool, reverse: bool, force: bool) -> str:
    """Does it, unless `check`, and says what."""
    checkout = recognise(repo, force or reverse)
    train = repo / "train.py"
    if _is_patched(repo) != reverse:
        return f"{train}: nothing to do, it is {'not patched' if reverse else 'patched already'}"
    if reverse and check:
        return f"{train}: the added line would be removed"
    if reverse:
        _write(repo, without_added(_read(repo)))
        return f"{train}: the added line is removed"
    if check:
        _first_statement(repo, _read(repo))
        return f"{train}: of {checkout.name}, can be patched"
    return (
        f"{train}: line {_add(repo)} is added. Now: python train.py --kd=clip ... (--help lists all flags); back: the "
        "same command with --reverse"
    )


if __name__ == "__main__":
    main()
