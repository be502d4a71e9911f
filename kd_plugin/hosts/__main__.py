"""Train an official StyleGAN checkout with distillation; none of its files is touched.

\b
    python -m kd_plugin.hosts --repo=stylegan2-ada-pytorch -- --outdir=runs --data=data.zip --kd=clip
    python -m kd_plugin.hosts --repo=stylegan2-ada-pytorch -- --help      all flags: those of its train.py and --kd-*
"""

from __future__ import annotations

from pathlib import Path

from kd_plugin.programs import ends_with_message, require_packages


def main(arguments: list[str] | None = None) -> None:
    require_packages("kd_plugin.hosts")
    import click

    from kd_plugin.hosts.checkouts import recognise
    from kd_plugin.hosts.launch import Launch, launch

    @click.command(help=__doc__)
    @click.option("--repo", required=True, metavar="PATH", help="The checkout: the folder that holds train.py")
    @click.option("--force", is_flag=True, help="Also run one that is edited or another commit")
    @click.option("--rehearse", is_flag=True, help="The same command on the CPU: 3 steps of a narrow network")
    @click.option("--keep", metavar="DIR", help="With --rehearse: keep what it writes in DIR")
    @click.option("--without", multiple=True, metavar="REPAIR", help="Leave out a repair that the log names")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(
        repo: str, force: bool, rehearse: bool, keep: str | None, without: tuple[str, ...], arguments: tuple[str, ...]
    ) -> None:
        with ends_with_message():
            checkout = recognise(Path(repo), force)
            kept = None if keep is None else Path(keep)
            launch(Launch(Path(repo).resolve(), checkout, without, rehearse, kept), arguments)

    command(arguments)


if __name__ == "__main__":
    main()
