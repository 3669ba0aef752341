"""Deliver what runs could not send while the tracking server was away, and name what they have left on disk."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@click.option(
    "--clean",
    type=bool,
    default=False,
    show_default=True,
    help="Remove the checkpoints of interrupted runs that no process is carrying out; they then start anew.",
)
def main(clean: bool) -> None:
    from encoder_reduction.data import cache
    from encoder_reduction.tracking import opening

    with opening.open_run() as run:
        run.describe("sync", {"stage": "sync"}, {})
        delivered = opening.settle()
        left = opening.leftovers(clean)
    click.echo(f"Delivered the messages of {len(delivered)} runs{': ' if delivered else ''}{', '.join(delivered)}.")
    if left:
        click.echo("\n  ".join([f"Interrupted runs have left in {cache.directory()} (clean=true removes it):", *left]))


if __name__ == "__main__":
    main()
