"""docs/train-help.txt is what train.py --help prints; and every flag has a help line."""

from __future__ import annotations

from pathlib import Path

import click

from train import main

PATH = Path(__file__).parents[1] / "docs" / "train-help.txt"


def help_text() -> str:
    context = click.Context(main, info_name="train.py", terminal_width=100, max_content_width=100)
    return main.get_help(context) + "\n"


def test_the_help_text_is_in_the_docs() -> None:
    """To write it anew: python -m tests.test_cli_help"""
    assert PATH.read_text(encoding="utf-8") == help_text()


def test_every_flag_says_what_it_is_for() -> None:
    for parameter in main.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help, parameter.name


if __name__ == "__main__":
    PATH.write_text(help_text(), encoding="utf-8")
