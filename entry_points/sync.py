"""Deliver what runs could not send while the tracking server was away."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
def main() -> None:
    from encoder_reduction.tracking import opening

    with opening.open_run() as run:
        run.describe("sync", {"stage": "sync"}, {})
        delivered = opening.settle()
    click.echo(f"Delivered the messages of {len(delivered)} runs{': ' if delivered else ''}{', '.join(delivered)}.")


if __name__ == "__main__":
    main()
